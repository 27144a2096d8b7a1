#pragma once

#include <memory>
#include <mutex>

#include "headloom/tasks/span_corruption/spans.h"
#include "headloom/tasks/t5_vocabulary.h"
#include "headloom/tasks/target_metrics.h"
#include "headloom/tasks/token_streams.h"

namespace headloom::tasks {

TaskEntry span_corruption_entry();

namespace span_corruption {

struct SpanCorruptionOptions {
  CorpusOptions corpus;
  T5Options t5;
  int64_t context = 512;  // tokens of an input, sentinels and the end included
  double noise_density = 0.15;
  double mean_span = 3.0;
};

// Says what was taken out of a text (spans.h), as T5 is pre-trained: an encoder reads the text with
// a sentinel in place of each span, and a decoder writes each sentinel and its span. Texts are
// windows of running text (token_streams.h) of the length whose inputs have `context` tokens.
// Training windows are corrupted anew each time; a validation window's spans depend on its number
// alone, so that figures of all models, seeds and batch sizes are about the same tokens. Metrics
// over the target tokens, sentinels and end included: nats_per_token, perplexity, token_accuracy.
// Tokens are counted on the target's side. Text is read when the first batch is asked for.
class SpanCorruptionTask : public Task {
 public:
  SpanCorruptionTask(const TaskConfig& config, const SpanCorruptionOptions& options);

  std::string name() const override { return "span_corruption"; }
  // Refuses a max_length below the inputs or the targets.
  std::shared_ptr<Model> make_model(nn::TransformerConfig config) const override;

  Batch train_batch(int64_t index) const override;
  int64_t validation_batches() const override;
  Batch validation_batch(int64_t index) const override;

  Loss loss(const at::Tensor& logits, const Batch& batch) const override {
    return target_loss(logits, batch, /*label_smoothing=*/0.0);
  }
  void measure(const at::Tensor& logits, const Batch& batch, Totals& totals) const override {
    measure_targets(logits, batch, totals);
  }
  Metrics metrics(const Totals& totals) const override { return target_metrics(totals); }
  MainMetric main_metric() const override { return {"nats_per_token", false}; }
  void keep(const std::string& run_folder) const override;  // the tokenizer
  int64_t typical_length() const override { return options_.context; }

  const SpanCounts& counts() const { return counts_; }

 private:
  struct Data {
    TokenStreams streams;
    Vocabularies vocabularies;
    std::unique_ptr<SpanCorruption> corruption;
  };
  const Data& data() const;
  Data read() const;

  TaskConfig config_;
  SpanCorruptionOptions options_;
  SpanCounts counts_;
  mutable std::mutex mutex_;
  mutable std::unique_ptr<Data> data_;
};

}  // namespace span_corruption
}  // namespace headloom::tasks

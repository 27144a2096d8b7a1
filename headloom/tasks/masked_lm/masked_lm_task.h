#pragma once

#include <memory>
#include <mutex>

#include "headloom/tasks/masked_lm/masking.h"
#include "headloom/tasks/task.h"
#include "headloom/tasks/token_streams.h"

namespace headloom::tasks {

TaskEntry masked_lm_entry();

namespace masked_lm {

struct MaskedLmOptions {
  CorpusOptions corpus;
  int64_t context = 128;  // tokens a sequence, the begin token included
  double mask_probability = 0.15;
  bool tie_embedding = true;
};

// Fills in the tokens of a text that were masked (masking.h). A sequence is the tokenizer's begin
// token and a window of context - 1 tokens of running text (token_streams.h). Training windows are
// masked anew each time; a validation window's mask depends on its number alone, so that figures of
// all models, seeds and batch sizes are about the same tokens. Metrics over the predicted tokens:
// loss (nats), accuracy, perplexity. Text and tokenizer are read when the first batch is asked for.
class MaskedLmTask : public Task {
 public:
  MaskedLmTask(const TaskConfig& config, const MaskedLmOptions& options);

  std::string name() const override { return "masked_lm"; }
  // Of the vocabulary in the options. Refuses a max_length below the context.
  std::shared_ptr<Model> make_model(nn::TransformerConfig config) const override;

  Batch train_batch(int64_t index) const override;
  int64_t validation_batches() const override;
  Batch validation_batch(int64_t index) const override;

  // logits [M, V], one row for each target that is not kNotPredicted.
  Loss loss(const at::Tensor& logits, const Batch& batch) const override;
  void measure(const at::Tensor& logits, const Batch& batch, Totals& totals) const override;
  Metrics metrics(const Totals& totals) const override;
  MainMetric main_metric() const override { return {"loss", false}; }
  void keep(const std::string& run_folder) const override;  // the tokenizer
  int64_t typical_length() const override { return options_.context; }

 private:
  struct Data {
    TokenStreams streams;
    std::unique_ptr<Masking> masking;
    int64_t begin = 0;  // the token
  };
  const Data& data() const;
  Data read() const;
  Batch batch_of(const std::vector<int32_t>& stream, const std::vector<int64_t>& starts) const;

  TaskConfig config_;
  MaskedLmOptions options_;
  mutable std::mutex mutex_;
  mutable std::unique_ptr<Data> data_;
};

}  // namespace masked_lm
}  // namespace headloom::tasks

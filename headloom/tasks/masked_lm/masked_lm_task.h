#pragma once

#include <memory>
#include <mutex>

#include "headloom/tasks/masked_lm/masking.h"
#include "headloom/tasks/task.h"
#include "headloom/tasks/tokenizer_options.h"

namespace headloom::tasks {

TaskEntry masked_lm_entry();

namespace masked_lm {

struct MaskedLmOptions {
  std::string path;             // a text file or a folder of them
  std::string validation_path;  // empty: the last lines of path
  double train_fraction = 0.9;  // of the lines, without a validation_path
  TokenizerOptions tokenizer;
  int64_t context = 128;  // tokens a sequence, the begin token included
  double mask_probability = 0.15;
  int64_t validation_limit = 0;  // sequences that are used; 0 uses all
  bool tie_embedding = true;
};

// Fills in the tokens of a text that were masked (masking.h). The lines of a text, but for blank
// ones, follow each other, each with the tokenizer's end token; a sequence is its begin token and
// context - 1 tokens of that stream. Training sequences start anywhere, uniformly, and are masked
// anew each time. Validation cuts its stream into sequences that do not overlap, leaving out what
// does not fill one; a sequence's mask depends on its number alone, so that figures of all models,
// seeds and batch sizes are about the same tokens. Metrics over the predicted tokens: loss (nats),
// accuracy, perplexity. Text and tokenizer are read when the first batch is asked for.
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
    std::unique_ptr<text::Tokenizer> tokenizer;
    std::unique_ptr<Masking> masking;
    int64_t begin = 0;                       // the token
    std::vector<int32_t> train, validation;  // streams
    int64_t sequences = 0;                   // of the validation
  };
  const Data& data() const;
  Data read() const;
  void make_masking(Data& data) const;
  Batch batch_of(const std::vector<int32_t>& stream, const std::vector<int64_t>& starts) const;

  TaskConfig config_;
  MaskedLmOptions options_;
  mutable std::mutex mutex_;
  mutable std::unique_ptr<Data> data_;
};

}  // namespace masked_lm
}  // namespace headloom::tasks

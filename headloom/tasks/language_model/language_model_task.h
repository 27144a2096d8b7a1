#pragma once

#include <mutex>
#include <optional>

#include "headloom/tasks/task.h"

namespace headloom::tasks {

TaskEntry language_model_entry();

namespace language_model {

constexpr int64_t kVocabulary = 256;  // bytes

struct LanguageModelOptions {
  std::string path;              // a text file or a folder of them
  int64_t context = 64;          // tokens a training sequence
  double train_fraction = 0.9;   // the first part; the rest is for validation
  int64_t validation_limit = 0;  // bytes of it that are used; 0 uses all
  bool tie_embedding = true;     // one matrix for input and output
};

// Predicts each byte of a text from those before it in its window. Training windows start anywhere
// in the training part, uniformly. Validation cuts its part into windows that do not overlap: every
// byte of it is predicted once, the first of a window from the one byte before it, the last window
// shorter. Metrics: nats_per_byte, bits_per_byte, perplexity (per byte). The text is read when the
// first batch is asked for, so a trained model generates without it.
class LanguageModelTask : public Task, public TextGenerator {
 public:
  LanguageModelTask(const TaskConfig& config, const LanguageModelOptions& options);

  std::string name() const override { return "language_model"; }
  // Refuses a max_length below the context.
  std::shared_ptr<Model> make_model(nn::TransformerConfig config) const override;

  Batch train_batch(int64_t index) const override;
  int64_t validation_batches() const override;
  Batch validation_batch(int64_t index) const override;

  Loss loss(const at::Tensor& logits, const Batch& batch) const override;
  void measure(const at::Tensor& logits, const Batch& batch, Totals& totals) const override;
  Metrics metrics(const Totals& totals) const override;
  MainMetric main_metric() const override { return {"nats_per_byte", false}; }
  int64_t typical_length() const override { return options_.context; }

  // One token a byte. decode() gives back exactly the bytes, valid UTF-8 or not, and refuses tokens
  // out of 0 .. 255.
  std::vector<int64_t> encode(const std::string& text) const override;
  std::string decode(const std::vector<int64_t>& tokens) const override;
  nn::LanguageModel& language_model(Model& model) const override;

 private:
  struct Corpus {
    std::string bytes;
    int64_t train = 0;       // bytes [0, train)
    int64_t validation = 0;  // bytes [train, train + validation)
  };
  const Corpus& corpus() const;
  Corpus read() const;

  TaskConfig config_;
  LanguageModelOptions options_;
  mutable std::mutex mutex_;
  mutable std::optional<Corpus> corpus_;
};

}  // namespace language_model
}  // namespace headloom::tasks

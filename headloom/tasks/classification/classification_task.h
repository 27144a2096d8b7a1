#pragma once

#include <memory>
#include <mutex>

#include "headloom/tasks/classification/classification_model.h"
#include "headloom/tasks/glue.h"
#include "headloom/tasks/order.h"
#include "headloom/tasks/tokenizer_options.h"

namespace headloom::tasks {

TaskEntry classification_entry();

namespace classification {

struct ClassificationOptions {
  GlueOptions glue;
  TokenizerOptions tokenizer;
  Pooling pooling = Pooling::kFirst;
  int64_t samples = 20;  // of a model with dropout, for the closing metrics; 0: none
};

// Sorts a sentence, or a pair of them, into two classes, in GLUE's file shapes. Texts are framed by
// the tokenizer's post-processor ([CLS] A [SEP], [CLS] A [SEP] B [SEP]); what is longer than
// max_length is cut at its end, of a pair always the longer one. Data is read when first asked for.
//
// Metrics: loss, the negative log-likelihood in nats; accuracy; f1 of class 1; matthews; ece, the
// expected calibration error in per cent. Closing metrics, from `samples` passes with dropout on
// (Monte Carlo dropout) whose draws depend on the seed alone: pavpu, the share of examples that are
// accurate and certain or neither, by a paired t-test of the classes' logits; pavpu_welch, the same
// by Welch's test of their probabilities (metrics.h); predictive_entropy of the mean probabilities
// and mutual_information, in nats, means over the examples.
class ClassificationTask : public Task, public TextClassifier {
 public:
  ClassificationTask(const TaskConfig& config, const ClassificationOptions& options);

  std::string name() const override { return "classification"; }
  // Refuses a model.max_length below the task's.
  std::shared_ptr<Model> make_model(nn::TransformerConfig config) const override;

  // Rows are padded on the right to the longest of the batch.
  Batch train_batch(int64_t index) const override;
  int64_t validation_batches() const override;
  Batch validation_batch(int64_t index) const override;

  Loss loss(const at::Tensor& logits, const Batch& batch) const override;
  void measure(const at::Tensor& logits, const Batch& batch, Totals& totals) const override;
  Metrics metrics(const Totals& totals) const override;
  MainMetric main_metric() const override { return {options_.glue.metric, true}; }
  std::optional<Metrics> closing_metrics(Model& model,
                                         const std::function<bool()>& stop) const override;
  std::string metrics_note() const override;
  void keep(const std::string& run_folder) const override;  // the tokenizer
  int64_t typical_length() const override;                  // mean of the validation rows

  std::vector<ClassifiedTexts> validation_texts() const override;
  const text::Tokenizer& tokenizer() const override { return *data().tokenizer; }
  Batch batch_of(const std::vector<ClassifiedTexts>& examples) const override;
  at::Tensor embedding(const Model& model) const override;
  at::Tensor forward_rows(Model& model, const at::Tensor& rows) const override;

 private:
  struct Examples {
    std::vector<std::vector<int64_t>> tokens, segments;
    std::vector<int64_t> labels;
  };
  struct Data {
    std::unique_ptr<text::Tokenizer> tokenizer;
    int64_t pad = 0;
    Examples train, validation;
    std::vector<ClassifiedTexts> validation_rows;
    std::unique_ptr<EpochOrder> order;
    std::vector<std::vector<int64_t>> validation_batches;
  };
  const Data& data() const;
  Data read() const;
  Examples encode(const std::vector<ClassifiedTexts>& rows, const text::Tokenizer& tokenizer) const;
  Batch batch_of(const Examples& examples, const std::vector<int64_t>& rows, int64_t pad) const;

  TaskConfig config_;
  ClassificationOptions options_;
  mutable std::mutex mutex_;
  mutable std::unique_ptr<Data> data_;
};

}  // namespace classification
}  // namespace headloom::tasks

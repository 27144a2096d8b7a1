#pragma once

#include <memory>
#include <mutex>
#include <optional>

#include "headloom/tasks/listops/generator.h"
#include "headloom/tasks/listops/listops_model.h"
#include "headloom/tasks/order.h"
#include "headloom/tasks/task.h"

namespace headloom::tasks {

TaskEntry listops_entry();

namespace listops {

struct ListOpsOptions {
  Pooling pooling = Pooling::kClass;
  bool evaluate_on_test = false;
  int64_t bucket_batches = 16;
  int64_t max_length = 1999;
  // From files when train_file is given, else generated.
  std::string train_file, validation_file, test_file;
  GeneratorConfig generator;
  int64_t train_size = 96'000, validation_size = 2'000, test_size = 2'000;
};

// Ten classes. Metrics: loss (nats) and accuracy. The generator's first expressions are the
// validation split, the next the test split, the rest the training split, so the splits share no
// expression and the first two do not depend on train_size. Data is made or read when first asked
// for; its errors come with the first batch.
class ListOpsTask : public Task {
 public:
  ListOpsTask(const TaskConfig& config, const ListOpsOptions& options);

  std::string name() const override { return "listops"; }
  // Refuses a max_length below the longest expression (one more with the pooling "cls").
  std::shared_ptr<Model> make_model(nn::TransformerConfig config) const override;

  // Rows are padded on the right to the longest of the batch.
  Batch train_batch(int64_t index) const override;
  int64_t validation_batches() const override;
  Batch validation_batch(int64_t index) const override;

  Loss loss(const at::Tensor& logits, const Batch& batch) const override;
  void measure(const at::Tensor& logits, const Batch& batch, Totals& totals) const override;
  Metrics metrics(const Totals& totals) const override;
  MainMetric main_metric() const override { return {"accuracy", true}; }
  int64_t typical_length() const override;  // mean of the split that is evaluated

  const Examples& training() const;    // also reads what is evaluated, so that its errors show
  const Examples& evaluation() const;  // the validation split, or the test split

 private:
  struct Evaluation {
    Examples examples;
    std::vector<std::vector<int64_t>> batches;
  };
  struct Training {
    Examples examples;
    std::unique_ptr<EpochOrder> order;
  };
  const Evaluation& load_evaluation() const;
  const Training& load_training() const;
  Examples read(const char* key, const std::string& file) const;

  TaskConfig config_;
  ListOpsOptions options_;
  mutable std::mutex mutex_;
  mutable std::optional<Generator> generator_;  // until it has made the training split
  mutable std::optional<Evaluation> evaluation_;
  mutable std::optional<Training> training_;
};

// Rows of a data set as one batch: tokens [B, T] padded with 0, targets [B]; the padding mask is
// left undefined when all rows are equally long.
Batch make_batch(const Examples& examples, const std::vector<int64_t>& rows);

}  // namespace listops
}  // namespace headloom::tasks

#pragma once

#include <optional>

#include "headloom/tasks/listops/generator.h"
#include "headloom/tasks/sequence_task.h"

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
// expression and the first two do not depend on train_size.
class ListOpsTask : public SequenceTask {
 public:
  ListOpsTask(const TaskConfig& config, const ListOpsOptions& options);

  std::string name() const override { return "listops"; }
  // Refuses a max_length below the longest expression (one more with the pooling "cls").
  std::shared_ptr<Model> make_model(nn::TransformerConfig config) const override;

 protected:
  Examples make_evaluation() const override;
  Examples make_training() const override;

 private:
  Examples read(const char* key, const std::string& file) const;

  ListOpsOptions options_;
  mutable std::optional<Generator> generator_;  // until it has made the training split
};

}  // namespace listops
}  // namespace headloom::tasks

#pragma once

#include <memory>
#include <mutex>
#include <optional>

#include "headloom/tasks/examples.h"
#include "headloom/tasks/order.h"
#include "headloom/tasks/pooling.h"

namespace headloom::tasks {

// What the classifiers of byte sequences share: batches, loss (nats) and accuracy. A task reads or
// makes its examples and builds its model. Examples are asked for with the first batch, those that
// are evaluated first; errors in them come then.
class SequenceTask : public Task {
 public:
  Batch train_batch(int64_t index) const override;
  int64_t validation_batches() const override;
  Batch validation_batch(int64_t index) const override;

  Loss loss(const at::Tensor& logits, const Batch& batch) const override;
  void measure(const at::Tensor& logits, const Batch& batch, Totals& totals) const override;
  Metrics metrics(const Totals& totals) const override;
  MainMetric main_metric() const override { return {"accuracy", true}; }
  int64_t typical_length() const override;  // mean of the split that is evaluated

  const Examples& training() const;
  const Examples& evaluation() const;

 protected:
  // bucket_batches: as EpochOrder has it; at least 1.
  SequenceTask(const TaskConfig& config, const BatchForm& form, int64_t bucket_batches);

  // Once each, this one first; no two calls at a time.
  virtual Examples make_evaluation() const = 0;
  virtual Examples make_training() const = 0;

  // "task <name>", for messages.
  std::string where() const { return "task " + name(); }
  // Refuses a model.max_length that is too short for `longest` tokens and the learned vector of the
  // pooling; `what` is what they are of, "expressions".
  void check_room(const nn::TransformerConfig& config, int64_t longest, const std::string& what,
                  Pooling pooling) const;

  TaskConfig config_;

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

  BatchForm form_;
  int64_t bucket_batches_;
  mutable std::mutex mutex_;
  mutable std::optional<Evaluation> evaluation_;
  mutable std::optional<Training> training_;
};

// evaluate_on (validation): validation or test. True: test.
bool read_evaluate_on_test(OptionReader& reader);
// bucket_batches (16), checked.
int64_t read_bucket_batches(OptionReader& reader, const std::string& where);
void check_at_least(const std::string& where, const char* key, int64_t value, int64_t least);

}  // namespace headloom::tasks

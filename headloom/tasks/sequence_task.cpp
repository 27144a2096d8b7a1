#include "headloom/tasks/sequence_task.h"

#include <ATen/ATen.h>

#include "headloom/base/check.h"
#include "headloom/mechanisms/cross_entropy.h"

namespace headloom::tasks {
namespace {

using at::Tensor;

}  // namespace

bool read_evaluate_on_test(OptionReader& reader) {
  return reader.choice("evaluate_on", "validation", {"validation", "test"}) == "test";
}

void check_at_least(const std::string& where, const char* key, int64_t value, int64_t least) {
  HEADLOOM_CHECK(value >= least, where, cat(key, " of at least ", least), cat(value));
}

int64_t read_bucket_batches(OptionReader& reader, const std::string& where) {
  const int64_t batches = reader.integer("bucket_batches", 16);
  check_at_least(where, "bucket_batches", batches, 1);
  return batches;
}

SequenceTask::SequenceTask(const TaskConfig& config, const BatchForm& form, int64_t bucket_batches)
    : config_(config), form_(form), bucket_batches_(bucket_batches) {}

void SequenceTask::check_room(const nn::TransformerConfig& config, int64_t longest,
                              const std::string& what, Pooling pooling) const {
  const int64_t needed = longest + class_vectors(pooling);
  HEADLOOM_CHECK(config.max_length >= needed, where(),
                 cat("model.max_length of at least ", needed, " for ", what, " of up to ", longest,
                     " tokens", needed > longest ? " and the vector in front" : ""),
                 cat(config.max_length));
}

const SequenceTask::Evaluation& SequenceTask::load_evaluation() const {
  if (evaluation_) return *evaluation_;
  Evaluation made;
  made.examples = make_evaluation();
  made.batches = batches_by_length(lengths(made.examples), config_.batch_size);
  evaluation_ = std::move(made);
  return *evaluation_;
}

const SequenceTask::Training& SequenceTask::load_training() const {
  if (training_) return *training_;
  load_evaluation();
  Training made;
  made.examples = make_training();
  made.order = std::make_unique<EpochOrder>(lengths(made.examples), config_.batch_size,
                                            bucket_batches_, config_.seed);
  training_ = std::move(made);
  return *training_;
}

const Examples& SequenceTask::training() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return load_training().examples;
}

const Examples& SequenceTask::evaluation() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return load_evaluation().examples;
}

Batch SequenceTask::train_batch(int64_t index) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Training& training = load_training();
  return make_batch(training.examples, training.order->batch(index), form_);
}

int64_t SequenceTask::validation_batches() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return static_cast<int64_t>(load_evaluation().batches.size());
}

Batch SequenceTask::validation_batch(int64_t index) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Evaluation& evaluation = load_evaluation();
  return make_batch(evaluation.examples, evaluation.batches.at(index), form_);
}

Loss SequenceTask::loss(const Tensor& logits, const Batch& batch) const {
  return {cross_entropy_sum(logits, batch.targets), static_cast<double>(batch.targets.size(0))};
}

void SequenceTask::measure(const Tensor& logits, const Batch& batch, Totals& totals) const {
  totals["nats"] += cross_entropy_sum(logits, batch.targets).item<double>();
  totals["right"] += (logits.argmax(1) == batch.targets).sum().item<double>();
  totals["examples"] += static_cast<double>(batch.targets.size(0));
}

Metrics SequenceTask::metrics(const Totals& totals) const {
  const double examples = totals.at("examples");
  return {{"loss", totals.at("nats") / examples}, {"accuracy", totals.at("right") / examples}};
}

int64_t SequenceTask::typical_length() const {
  const Examples& examples = evaluation();
  int64_t total = 0;
  for (const int64_t length : lengths(examples)) total += length;
  const auto count = static_cast<int64_t>(examples.size());
  return (total + count / 2) / count;
}

}  // namespace headloom::tasks

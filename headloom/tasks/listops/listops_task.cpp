#include "headloom/tasks/listops/listops_task.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "headloom/base/check.h"
#include "headloom/tasks/files.h"
#include "headloom/tasks/listops/loader.h"

// B batch, T tokens.
namespace headloom::tasks {
namespace listops {
namespace {

using at::Tensor;

constexpr const char* kWhere = "task listops";

std::vector<int64_t> lengths(const Examples& examples) {
  std::vector<int64_t> values;
  values.reserve(examples.size());
  for (const Example& example : examples) {
    values.push_back(static_cast<int64_t>(example.tokens.size()));
  }
  return values;
}

Tensor cross_entropy_sum(const Tensor& logits, const Tensor& targets) {
  return at::cross_entropy_loss(logits.to(at::kFloat), targets, {}, at::Reduction::Sum);
}

ListOpsOptions read_options(OptionReader& reader) {
  ListOpsOptions options;
  options.pooling =
      reader.choice("pooling", "cls", {"cls", "mean"}) == "cls" ? Pooling::kClass : Pooling::kMean;
  options.evaluate_on_test =
      reader.choice("evaluate_on", "validation", {"validation", "test"}) == "test";
  options.bucket_batches = reader.integer("bucket_batches", options.bucket_batches);
  options.max_length = reader.integer("max_length", options.max_length);
  options.train_file = reader.text("train_file", "");
  options.validation_file = reader.text("validation_file", "");
  options.test_file = reader.text("test_file", "");
  if (options.train_file.empty() && options.validation_file.empty() && options.test_file.empty()) {
    GeneratorConfig& generator = options.generator;
    generator.max_length = options.max_length;
    generator.min_length = reader.integer("min_length", generator.min_length);
    generator.max_depth = reader.integer("max_depth", generator.max_depth);
    generator.max_args = reader.integer("max_args", generator.max_args);
    const int64_t seed = reader.integer("data_seed", static_cast<int64_t>(generator.seed));
    HEADLOOM_CHECK(seed >= 0, kWhere, "data_seed of at least 0", cat(seed));
    generator.seed = static_cast<uint64_t>(seed);
    options.train_size = reader.integer("train_size", options.train_size);
    options.validation_size = reader.integer("validation_size", options.validation_size);
    options.test_size = reader.integer("test_size", options.test_size);
  }
  reader.done();
  return options;
}

void check_at_least(const char* key, int64_t value, int64_t least) {
  HEADLOOM_CHECK(value >= least, kWhere, cat(key, " of at least ", least), cat(value));
}

void check_options(const ListOpsOptions& options) {
  check_at_least("bucket_batches", options.bucket_batches, 1);
  check_at_least("max_length", options.max_length, 1);
  if (options.train_file.empty() && options.validation_file.empty() && options.test_file.empty()) {
    check_at_least("train_size", options.train_size, 1);
    check_at_least("validation_size", options.validation_size, 1);
    check_at_least("test_size", options.test_size, options.evaluate_on_test ? 1 : 0);
    return;
  }
  const char* split = options.evaluate_on_test ? "test_file" : "validation_file";
  HEADLOOM_CHECK(!options.train_file.empty(), kWhere, cat("train_file beside ", split), "none");
  HEADLOOM_CHECK(!(options.evaluate_on_test ? options.test_file : options.validation_file).empty(),
                 kWhere, cat(split, " beside train_file"), "none");
}

}  // namespace

Batch make_batch(const Examples& examples, const std::vector<int64_t>& rows) {
  int64_t longest = 0, shortest = INT64_MAX;
  for (const int64_t row : rows) {
    const auto length = static_cast<int64_t>(examples[row].tokens.size());
    longest = std::max(longest, length);
    shortest = std::min(shortest, length);
  }
  const auto size = static_cast<int64_t>(rows.size());
  Batch batch;
  batch.tokens = at::full({size, longest}, int64_t{kPad}, at::kLong);
  batch.targets = at::empty({size}, at::kLong);
  int64_t* tokens = batch.tokens.data_ptr<int64_t>();
  int64_t* targets = batch.targets.data_ptr<int64_t>();
  for (int64_t i = 0; i < size; ++i) {
    const Example& example = examples[rows[i]];
    std::copy(example.tokens.begin(), example.tokens.end(), tokens + i * longest);
    targets[i] = example.value;
    batch.token_count += static_cast<int64_t>(example.tokens.size());
  }
  if (shortest < longest) batch.masks.key_padding_mask = batch.tokens == int64_t{kPad};
  return batch;
}

ListOpsTask::ListOpsTask(const TaskConfig& config, const ListOpsOptions& options)
    : config_(config), options_(options) {
  check_options(options);
  if (options.train_file.empty()) generator_.emplace(options.generator);
}

std::shared_ptr<Model> ListOpsTask::make_model(nn::TransformerConfig config) const {
  const int64_t needed = options_.max_length + (options_.pooling == Pooling::kClass ? 1 : 0);
  HEADLOOM_CHECK(config.max_length >= needed, kWhere,
                 cat("model.max_length of at least ", needed, " for expressions of up to ",
                     options_.max_length, " tokens",
                     needed > options_.max_length ? " and the vector in front" : ""),
                 cat(config.max_length));
  return std::make_shared<ListOpsModel>(std::move(config), options_.pooling);
}

Examples ListOpsTask::read(const char* key, const std::string& file) const {
  HEADLOOM_CHECK(!file.empty(), kWhere, key, "none");
  return load(resolve(config_.base_folder, file), options_.max_length);
}

const ListOpsTask::Evaluation& ListOpsTask::load_evaluation() const {
  if (evaluation_) return *evaluation_;
  Evaluation made;
  if (generator_) {
    Examples validation = generator_->next(options_.validation_size);
    Examples test = generator_->next(options_.test_size);
    made.examples = std::move(options_.evaluate_on_test ? test : validation);
  } else {
    made.examples = options_.evaluate_on_test ? read("test_file", options_.test_file)
                                              : read("validation_file", options_.validation_file);
  }
  made.batches = batches_by_length(lengths(made.examples), config_.batch_size);
  evaluation_ = std::move(made);
  return *evaluation_;
}

const ListOpsTask::Training& ListOpsTask::load_training() const {
  if (training_) return *training_;
  load_evaluation();
  Training made;
  made.examples =
      generator_ ? generator_->next(options_.train_size) : read("train_file", options_.train_file);
  made.order = std::make_unique<EpochOrder>(lengths(made.examples), config_.batch_size,
                                            options_.bucket_batches, config_.seed);
  generator_.reset();
  training_ = std::move(made);
  return *training_;
}

const Examples& ListOpsTask::training() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return load_training().examples;
}

const Examples& ListOpsTask::evaluation() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return load_evaluation().examples;
}

Batch ListOpsTask::train_batch(int64_t index) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Training& training = load_training();
  return make_batch(training.examples, training.order->batch(index));
}

int64_t ListOpsTask::validation_batches() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return static_cast<int64_t>(load_evaluation().batches.size());
}

Batch ListOpsTask::validation_batch(int64_t index) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Evaluation& evaluation = load_evaluation();
  return make_batch(evaluation.examples, evaluation.batches.at(index));
}

Loss ListOpsTask::loss(const Tensor& logits, const Batch& batch) const {
  return {cross_entropy_sum(logits, batch.targets), static_cast<double>(batch.targets.size(0))};
}

void ListOpsTask::measure(const Tensor& logits, const Batch& batch, Totals& totals) const {
  totals["nats"] += cross_entropy_sum(logits, batch.targets).item<double>();
  totals["right"] += (logits.argmax(1) == batch.targets).sum().item<double>();
  totals["examples"] += static_cast<double>(batch.targets.size(0));
}

Metrics ListOpsTask::metrics(const Totals& totals) const {
  const double examples = totals.at("examples");
  return {{"loss", totals.at("nats") / examples}, {"accuracy", totals.at("right") / examples}};
}

int64_t ListOpsTask::typical_length() const {
  const Examples& examples = evaluation();
  int64_t total = 0;
  for (const int64_t length : lengths(examples)) total += length;
  const auto count = static_cast<int64_t>(examples.size());
  return (total + count / 2) / count;
}

}  // namespace listops

TaskEntry listops_entry() {
  return {
      "listops",
      "value of a nested list expression, 10 classes (Long Range Arena)",
      "pooling (cls): cls (a learned vector in front, as published) or mean (over the tokens)\n"
      "evaluate_on (validation): validation or test\n"
      "bucket_batches (16): batches whose rows are sorted by length together; 1 does not sort\n"
      "max_length (1999): longest expression in tokens\n"
      "min_length (501): shortest generated expression\n"
      "max_depth (10): nodes at this depth are digits\n"
      "max_args (10): most arguments of an operator; the fewest are 2\n"
      "data_seed (1): of the generated expressions\n"
      "train_size (96000), validation_size (2000), test_size (2000): generated expressions\n"
      "train_file, validation_file, test_file (none): TSV files Source<TAB>Target to read instead "
      "of generating",
      [](const TaskConfig& config, OptionReader& reader) -> std::unique_ptr<Task> {
        return std::make_unique<listops::ListOpsTask>(config, listops::read_options(reader));
      },
  };
}

}  // namespace headloom::tasks

#include "headloom/tasks/listops/listops_task.h"

#include "headloom/base/check.h"
#include "headloom/tasks/files.h"
#include "headloom/tasks/listops/loader.h"
#include "headloom/tasks/sequence_classifier.h"

namespace headloom::tasks {
namespace listops {
namespace {

constexpr const char* kWhere = "task listops";

ListOpsOptions read_options(OptionReader& reader) {
  ListOpsOptions options;
  options.pooling =
      reader.choice("pooling", "cls", {"cls", "mean"}) == "cls" ? Pooling::kClass : Pooling::kMean;
  options.evaluate_on_test = read_evaluate_on_test(reader);
  options.bucket_batches = read_bucket_batches(reader, kWhere);
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

void check_options(const ListOpsOptions& options) {
  check_at_least(kWhere, "max_length", options.max_length, 1);
  if (options.train_file.empty() && options.validation_file.empty() && options.test_file.empty()) {
    check_at_least(kWhere, "train_size", options.train_size, 1);
    check_at_least(kWhere, "validation_size", options.validation_size, 1);
    check_at_least(kWhere, "test_size", options.test_size, options.evaluate_on_test ? 1 : 0);
    return;
  }
  const char* split = options.evaluate_on_test ? "test_file" : "validation_file";
  HEADLOOM_CHECK(!options.train_file.empty(), kWhere, cat("train_file beside ", split), "none");
  HEADLOOM_CHECK(!(options.evaluate_on_test ? options.test_file : options.validation_file).empty(),
                 kWhere, cat(split, " beside train_file"), "none");
}

}  // namespace

ListOpsTask::ListOpsTask(const TaskConfig& config, const ListOpsOptions& options)
    : SequenceTask(config, {}, options.bucket_batches), options_(options) {
  check_options(options);
  if (options.train_file.empty()) generator_.emplace(options.generator);
}

std::shared_ptr<Model> ListOpsTask::make_model(nn::TransformerConfig config) const {
  check_room(config, options_.max_length, "expressions", options_.pooling);
  return std::make_shared<SequenceClassifier>(std::move(config), kVocabulary, kValues,
                                              options_.pooling);
}

Examples ListOpsTask::read(const char* key, const std::string& file) const {
  HEADLOOM_CHECK(!file.empty(), kWhere, key, "none");
  return load(resolve(config_.base_folder, file), options_.max_length);
}

Examples ListOpsTask::make_evaluation() const {
  if (!generator_) {
    return options_.evaluate_on_test ? read("test_file", options_.test_file)
                                     : read("validation_file", options_.validation_file);
  }
  Examples validation = generator_->next(options_.validation_size);
  Examples test = generator_->next(options_.test_size);
  return options_.evaluate_on_test ? test : validation;
}

Examples ListOpsTask::make_training() const {
  if (!generator_) return read("train_file", options_.train_file);
  Examples examples = generator_->next(options_.train_size);
  generator_.reset();
  return examples;
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

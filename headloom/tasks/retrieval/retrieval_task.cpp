#include "headloom/tasks/retrieval/retrieval_task.h"

#include "headloom/base/check.h"
#include "headloom/tasks/files.h"
#include "headloom/tasks/labelled_bytes.h"
#include "headloom/tasks/retrieval/retrieval_model.h"

namespace headloom::tasks {
namespace retrieval {
namespace {

constexpr const char* kWhere = "task retrieval";
constexpr int64_t kVocabulary = 257;

RetrievalOptions read_options(OptionReader& reader) {
  RetrievalOptions options;
  options.train_file = reader.text("train_file", "");
  options.validation_file = reader.text("validation_file", "");
  options.test_file = reader.text("test_file", "");
  options.evaluate_on_test = read_evaluate_on_test(reader);
  options.max_length = reader.integer("max_length", options.max_length);
  const std::string pooling = reader.choice("pooling", "first", {"first", "cls", "mean"});
  options.pooling = pooling == "first" ? Pooling::kFirst
                    : pooling == "cls" ? Pooling::kClass
                                       : Pooling::kMean;
  options.interactions = reader.boolean("interactions", options.interactions);
  options.bucket_batches = read_bucket_batches(reader, kWhere);
  reader.done();
  return options;
}

}  // namespace

RetrievalTask::RetrievalTask(const TaskConfig& config, const RetrievalOptions& options)
    : SequenceTask(config, {.shift = 1, .pairs = true}, options.bucket_batches), options_(options) {
  HEADLOOM_CHECK(!options.train_file.empty(), kWhere, "train_file", "none");
  const bool test = options.evaluate_on_test;
  HEADLOOM_CHECK(!(test ? options.test_file : options.validation_file).empty(), kWhere,
                 test ? "test_file" : "validation_file", "none");
  check_at_least(kWhere, "max_length", options.max_length, 1);
}

std::shared_ptr<Model> RetrievalTask::make_model(nn::TransformerConfig config) const {
  check_room(config, options_.max_length, "texts", options_.pooling);
  HEADLOOM_CHECK(config.ffn >= 2, kWhere, "model.ffn of at least 2", cat(config.ffn));
  return std::make_shared<RetrievalModel>(std::move(config), kVocabulary, options_.pooling,
                                          options_.interactions);
}

Examples RetrievalTask::read(const char* key, const std::string& file) const {
  HEADLOOM_CHECK(!file.empty(), kWhere, key, "none");
  LabelledForm form;
  form.columns = 5;
  form.pairs = true;
  form.longest = options_.max_length;
  return read_labelled_bytes(resolve(config_.base_folder, file), form);
}

Examples RetrievalTask::make_evaluation() const {
  return options_.evaluate_on_test ? read("test_file", options_.test_file)
                                   : read("validation_file", options_.validation_file);
}

}  // namespace retrieval

TaskEntry retrieval_entry() {
  return {
      "retrieval",
      "does one paper cite the other? Two texts by their bytes (Long Range Arena)",
      "train_file (required), validation_file, test_file (none): rows of a class 0.0 or 1.0, two "
      "names and two texts, with tabs between and no header\n"
      "evaluate_on (validation): validation or test\n"
      "max_length (4000): bytes of each text; longer ones are cut\n"
      "pooling (first): first (byte, as published), cls (a learned vector in front) or mean\n"
      "interactions (false): the head also sees the product and the difference of both texts\n"
      "bucket_batches (16): batches whose rows are sorted by length together; 1 does not sort",
      [](const TaskConfig& config, OptionReader& reader) -> std::unique_ptr<Task> {
        return std::make_unique<retrieval::RetrievalTask>(config, retrieval::read_options(reader));
      },
  };
}

}  // namespace headloom::tasks

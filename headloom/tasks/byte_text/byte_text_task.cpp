#include "headloom/tasks/byte_text/byte_text_task.h"

#include "headloom/base/check.h"
#include "headloom/tasks/files.h"
#include "headloom/tasks/labelled_bytes.h"
#include "headloom/tasks/sequence_classifier.h"

namespace headloom::tasks {
namespace byte_text {
namespace {

constexpr const char* kWhere = "task byte_text";
constexpr int64_t kVocabulary = 257, kClasses = 2;

ByteTextOptions read_options(OptionReader& reader) {
  ByteTextOptions options;
  options.train_file = reader.text("train_file", "");
  options.validation_file = reader.text("validation_file", "");
  options.max_length = reader.integer("max_length", options.max_length);
  options.pooling =
      reader.choice("pooling", "cls", {"cls", "mean"}) == "cls" ? Pooling::kClass : Pooling::kMean;
  options.bucket_batches = read_bucket_batches(reader, kWhere);
  reader.done();
  return options;
}

}  // namespace

ByteTextTask::ByteTextTask(const TaskConfig& config, const ByteTextOptions& options)
    : SequenceTask(config, {.shift = 1}, options.bucket_batches), options_(options) {
  HEADLOOM_CHECK(!options.train_file.empty(), kWhere, "train_file", "none");
  HEADLOOM_CHECK(!options.validation_file.empty(), kWhere, "validation_file", "none");
  check_at_least(kWhere, "max_length", options.max_length, 1);
}

std::shared_ptr<Model> ByteTextTask::make_model(nn::TransformerConfig config) const {
  check_room(config, options_.max_length, "texts", options_.pooling);
  return std::make_shared<SequenceClassifier>(std::move(config), kVocabulary, kClasses,
                                              options_.pooling);
}

Examples ByteTextTask::read(const std::string& file) const {
  LabelledForm form;
  form.longest = options_.max_length;
  return read_labelled_bytes(resolve(config_.base_folder, file), form);
}

}  // namespace byte_text

TaskEntry byte_text_entry() {
  return {
      "byte_text",
      "two classes of texts by their bytes (Long Range Arena: IMDB reviews)",
      "train_file, validation_file (required): rows of a class 0 or 1, anything, and a text, with "
      "tabs between and no header\n"
      "max_length (1000): bytes; longer texts are cut\n"
      "pooling (cls): cls (a learned vector in front, as published) or mean (over the bytes)\n"
      "bucket_batches (16): batches whose rows are sorted by length together; 1 does not sort",
      [](const TaskConfig& config, OptionReader& reader) -> std::unique_ptr<Task> {
        return std::make_unique<byte_text::ByteTextTask>(config, byte_text::read_options(reader));
      },
  };
}

}  // namespace headloom::tasks

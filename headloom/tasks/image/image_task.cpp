#include "headloom/tasks/image/image_task.h"

#include <iterator>

#include "headloom/base/check.h"
#include "headloom/tasks/files.h"
#include "headloom/tasks/sequence_classifier.h"

namespace headloom::tasks {
namespace image {
namespace {

constexpr const char* kWhere = "task image";
constexpr int64_t kGreyValues = 256, kClasses = 10;

ImageOptions read_options(OptionReader& reader) {
  ImageOptions options;
  options.csv = reader.choice("format", "cifar10", {"cifar10", "csv"}) == "csv";
  options.folder = reader.text("folder", "");
  if (options.csv) options.pixels = reader.integer("pixels", 64);
  options.pooling = reader.choice("pooling", "cls", {"cls", "mean"}) == "cls" ? Pooling::kClass
                                                                              : Pooling::kMeanAll;
  options.evaluate_on_test = read_evaluate_on_test(reader);
  options.mask_zeros = reader.boolean("mask_zeros", options.mask_zeros);
  reader.done();
  return options;
}

// Of n training pictures, those that train.
std::ptrdiff_t kept(size_t pictures) {
  return static_cast<std::ptrdiff_t>(pictures - pictures / 10);
}

}  // namespace

ImageTask::ImageTask(const TaskConfig& config, const ImageOptions& options)
    // All pictures are as long as each other.
    : SequenceTask(config, {.shift = 0, .pairs = false, .mask_zeros = options.mask_zeros}, 1),
      options_(options) {
  HEADLOOM_CHECK(!options.folder.empty(), kWhere, "folder, of the pictures", "none");
  check_at_least(kWhere, "pixels", options.pixels, 1);
}

std::shared_ptr<Model> ImageTask::make_model(nn::TransformerConfig config) const {
  check_room(config, options_.pixels, "pictures", options_.pooling);
  return std::make_shared<SequenceClassifier>(std::move(config), kGreyValues, kClasses,
                                              options_.pooling);
}

Examples ImageTask::read(bool training) const {
  const std::filesystem::path folder = resolve(config_.base_folder, options_.folder);
  if (!options_.csv) return read_cifar(folder, training);
  return read_csv(folder / (training ? "train.csv" : "test.csv"), options_.pixels);
}

Examples ImageTask::make_evaluation() const {
  if (options_.evaluate_on_test) return read(false);
  Examples all = read(true);
  HEADLOOM_CHECK(all.size() >= 10, kWhere, "at least 10 training pictures, a tenth to validate",
                 cat(all.size()));
  return {std::make_move_iterator(all.begin() + kept(all.size())),
          std::make_move_iterator(all.end())};
}

Examples ImageTask::make_training() const {
  Examples all = read(true);
  all.resize(static_cast<size_t>(kept(all.size())));
  return all;
}

}  // namespace image

TaskEntry image_entry() {
  return {
      "image",
      "ten classes of grey pictures by pixels (Long Range Arena: CIFAR-10)",
      "folder (required): CIFAR-10's binary version, or train.csv and test.csv\n"
      "format (cifar10): cifar10 or csv (values 0 to 255 and the class, with commas, no header)\n"
      "pixels (64): of a picture, with format csv\n"
      "evaluate_on (validation): validation (the last tenth of the training file) or test\n"
      "pooling (cls): cls (a learned vector in front, as published) or mean (over all pixels)\n"
      "mask_zeros (true): black pixels are padding that nothing attends to, as published",
      [](const TaskConfig& config, OptionReader& reader) -> std::unique_ptr<Task> {
        return std::make_unique<image::ImageTask>(config, image::read_options(reader));
      },
  };
}

}  // namespace headloom::tasks

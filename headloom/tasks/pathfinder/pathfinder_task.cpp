#include "headloom/tasks/pathfinder/pathfinder_task.h"

#include "headloom/base/check.h"
#include "headloom/base/parallel.h"
#include "headloom/tasks/sequence_classifier.h"

namespace headloom::tasks {
namespace pathfinder {
namespace {

constexpr const char* kWhere = "task pathfinder";
constexpr int64_t kGreyValues = 256, kClasses = 2;

PathfinderOptions read_options(OptionReader& reader) {
  PathfinderOptions options;
  options.pooling = reader.choice("pooling", "mean", {"cls", "mean"}) == "cls" ? Pooling::kClass
                                                                               : Pooling::kMeanAll;
  options.evaluate_on_test = read_evaluate_on_test(reader);
  options.mask_zeros = reader.boolean("mask_zeros", options.mask_zeros);
  options.setting = setting_of(reader.integer("size", options.setting.size),
                               reader.integer("contour_length", options.setting.contour_length));
  const int64_t seed = reader.integer("data_seed", static_cast<int64_t>(options.seed));
  check_at_least(kWhere, "data_seed", seed, 0);
  options.seed = static_cast<uint64_t>(seed);
  options.train_size = reader.integer("train_size", options.train_size);
  options.validation_size = reader.integer("validation_size", options.validation_size);
  options.test_size = reader.integer("test_size", options.test_size);
  reader.done();
  return options;
}

}  // namespace

PathfinderTask::PathfinderTask(const TaskConfig& config, const PathfinderOptions& options)
    // All images are as long as each other.
    : SequenceTask(config, {.shift = 0, .pairs = false, .mask_zeros = options.mask_zeros}, 1),
      options_(options) {
  check_at_least(kWhere, "train_size", options.train_size, 1);
  check_at_least(kWhere, "validation_size", options.validation_size, 1);
  check_at_least(kWhere, "test_size", options.test_size, options.evaluate_on_test ? 1 : 0);
}

std::shared_ptr<Model> PathfinderTask::make_model(nn::TransformerConfig config) const {
  check_room(config, typical_length(), "images", options_.pooling);
  return std::make_shared<SequenceClassifier>(std::move(config), kGreyValues, kClasses,
                                              options_.pooling);
}

Examples PathfinderTask::make(int64_t first, int64_t count) const {
  Examples examples(static_cast<size_t>(count));
  parallel_for(0, count, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Image image = make_image(options_.setting, options_.seed, static_cast<uint64_t>(first + i));
      examples[static_cast<size_t>(i)] = {std::move(image.pixels), image.connected};
    }
  });
  return examples;
}

Examples PathfinderTask::make_evaluation() const {
  return options_.evaluate_on_test ? make(options_.validation_size, options_.test_size)
                                   : make(0, options_.validation_size);
}

Examples PathfinderTask::make_training() const {
  return make(options_.validation_size + options_.test_size, options_.train_size);
}

}  // namespace pathfinder

TaskEntry pathfinder_entry() {
  return {
      "pathfinder",
      "are two markers on one path? Images by pixels (Long Range Arena)",
      "size (32): of the images: 32, 64, 128 (Path-X) or 256\n"
      "contour_length (14): paddles of the two snakes: 6 easy, 9 intermediate, 14 hard\n"
      "data_seed (1): of the images\n"
      "train_size (160000), validation_size (20000), test_size (20000): images\n"
      "evaluate_on (validation): validation or test\n"
      "pooling (mean): mean (over all pixels, as published) or cls (a learned vector in front)\n"
      "mask_zeros (true): black pixels are padding that nothing attends to, as published",
      [](const TaskConfig& config, OptionReader& reader) -> std::unique_ptr<Task> {
        return std::make_unique<pathfinder::PathfinderTask>(config,
                                                            pathfinder::read_options(reader));
      },
  };
}

}  // namespace headloom::tasks

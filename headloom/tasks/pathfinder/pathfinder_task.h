#pragma once

#include "headloom/tasks/pathfinder/generator.h"
#include "headloom/tasks/sequence_task.h"

namespace headloom::tasks {

TaskEntry pathfinder_entry();

namespace pathfinder {

struct PathfinderOptions {
  Pooling pooling = Pooling::kMeanAll;
  bool evaluate_on_test = false;
  bool mask_zeros = true;
  Setting setting;
  uint64_t seed = 1;
  int64_t train_size = 160'000, validation_size = 20'000, test_size = 20'000;
};

// Are two markers on one path? Images by rows, a token a pixel, 256 grey values, two classes.
// Images 0, 1, ... of the data seed are the validation split, then the test split, then the
// training split, so that the first two do not depend on train_size.
class PathfinderTask : public SequenceTask {
 public:
  PathfinderTask(const TaskConfig& config, const PathfinderOptions& options);

  std::string name() const override { return "pathfinder"; }
  std::shared_ptr<Model> make_model(nn::TransformerConfig config) const override;
  int64_t typical_length() const override { return options_.setting.size * options_.setting.size; }

 protected:
  Examples make_evaluation() const override;
  Examples make_training() const override;

 private:
  Examples make(int64_t first, int64_t count) const;

  PathfinderOptions options_;
};

}  // namespace pathfinder
}  // namespace headloom::tasks

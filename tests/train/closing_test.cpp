// Metrics that are taken once, of a finished model.
#include <gmock/gmock.h>

#include <csignal>

#include "headloom/train/validate.h"
#include "tests/train/tiny_task.h"

namespace headloom::train {
namespace {

using ::testing::Contains;
using ::testing::Not;
using ::testing::Pair;

class ClosingTask : public TinyTask {
 public:
  std::function<void()> on_close;
  mutable at::Tensor seen;  // a weight, at the time

  std::optional<tasks::Metrics> closing_metrics(tasks::Model& model,
                                                const std::function<bool()>& stop) const override {
    EXPECT_FALSE(model.is_training());
    torch::rand({1});  // what it draws must not reach the run
    seen = model.named_parameters()["output.weight"].detach().clone();
    if (on_close) on_close();
    if (stop()) return std::nullopt;
    return tasks::Metrics{{"score", 7.0}};
  }
  tasks::MainMetric headline() const override { return {"score", true}; }
};

TEST(Closing, MetricsJoinThoseOfTheEnd) {
  ScratchFolder scratch;
  const ClosingTask task;
  const RunSummary summary = train(tiny_recipe(), task, quiet(scratch / "run"));
  EXPECT_THAT(summary.final_metrics, Contains(Pair("score", 7.0)));
  EXPECT_THAT(summary.best_metrics, Not(Contains(Pair("score", 7.0))));
  EXPECT_EQ(summary.main_metric, "score");
  EXPECT_TRUE(summary.higher_is_better);
  EXPECT_EQ(read_summary(scratch / "run/summary.json").final_metrics, summary.final_metrics);
}

TEST(Closing, SeesTheAverageOfTheWeights) {
  ScratchFolder scratch;
  const ClosingTask task;
  train(tiny_recipe(), task, quiet(scratch / "run"));
  const Checkpoint last = newest(scratch / "run");
  for (const auto& [name, tensor] : last.state) {
    if (name == "ema.output.weight") {
      EXPECT_TRUE(at::equal(task.seen, tensor));
    }
  }
  for (const auto& [name, tensor] : last.model) {
    if (name == "output.weight") {
      EXPECT_FALSE(at::equal(task.seen, tensor));
    }
  }
}

TEST(Closing, ChangesNothingOfTheRun) {
  ScratchFolder scratch;
  train(tiny_recipe(), ClosingTask(), quiet(scratch / "run"));
  train(tiny_recipe(), TinyTask(), quiet(scratch / "plain"));
  const Checkpoint a = newest(scratch / "run"), b = newest(scratch / "plain");
  ASSERT_EQ(a.state.size(), b.state.size());
  for (size_t i = 0; i < a.state.size(); ++i) {
    EXPECT_TRUE(at::equal(a.state[i].second, b.state[i].second)) << a.state[i].first;
  }
}

TEST(Closing, GoesOnWhereASignalStoppedIt) {
  ScratchFolder scratch;
  ClosingTask task;
  task.on_close = [] { std::raise(SIGTERM); };
  const RunSummary stopped = train(tiny_recipe(), task, quiet(scratch / "run"));
  EXPECT_FALSE(stopped.completed);
  EXPECT_EQ(newest(scratch / "run").step, 13) << "the last step is safe before it";
  const RunSummary summary = train(tiny_recipe(), ClosingTask(), quiet(scratch / "run"));
  EXPECT_TRUE(summary.completed);
  EXPECT_THAT(summary.final_metrics, Contains(Pair("score", 7.0)));
}

TEST(Closing, EvaluationTakesThemToo) {
  const ClosingTask task;
  const Recipe recipe = tiny_recipe();
  const auto model = task.make_model(recipe.model);
  EXPECT_THAT(evaluate(*model, task, recipe), Contains(Pair("score", 7.0)));
  EXPECT_THAT(validate(*model, task, recipe), Not(Contains(Pair("score", 7.0))));
}

}  // namespace
}  // namespace headloom::train

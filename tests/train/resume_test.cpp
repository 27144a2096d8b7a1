#include <gmock/gmock.h>

#include <csignal>

#include "headloom/base/check.h"
#include "tests/train/tiny_task.h"

namespace headloom::train {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::ThrowsMessage;

void expect_same_tensors(const NamedTensors& found, const NamedTensors& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].first, expected[i].first);
    EXPECT_TRUE(at::equal(found[i].second, expected[i].second)) << found[i].first;
  }
}

Json counters_without_clock(const Checkpoint& checkpoint) {
  Json counters = Json::parse(checkpoint.values.at("counters"));
  counters.erase("train_seconds");
  counters.erase("interval_seconds");
  return counters;
}

// Bit for bit, in everything that a run continues from and everything that it has measured.
void expect_same_run(const std::string& found, const std::string& expected) {
  const Checkpoint a = newest(found), b = newest(expected);
  EXPECT_EQ(a.step, b.step);
  expect_same_tensors(a.model, b.model);
  expect_same_tensors(a.state, b.state);
  EXPECT_EQ(counters_without_clock(a), counters_without_clock(b));
  EXPECT_EQ(curve(found), curve(expected));
  const RunSummary x = read_summary(found + "/summary.json");
  const RunSummary y = read_summary(expected + "/summary.json");
  EXPECT_EQ(x.best_metrics, y.best_metrics);
  EXPECT_EQ(x.final_metrics, y.final_metrics);
  EXPECT_EQ(x.best_step, y.best_step);
}

class Resume : public ::testing::Test {
 protected:
  void SetUp() override {
    whole_ = scratch_ / "whole";
    folder_ = scratch_ / "pieces";
    const RunSummary summary = train(recipe_, TinyTask(), quiet(whole_));
    ASSERT_TRUE(summary.completed);
    ASSERT_EQ(summary.step, recipe_.train.steps);
  }

  // Trains until the signal, expecting to stop after `step` updates.
  void stop_at(const TinyTask& task, int64_t step) {
    const RunSummary summary = train(recipe_, task, quiet(folder_));
    EXPECT_FALSE(summary.completed);
    EXPECT_EQ(summary.step, step);
    EXPECT_EQ(newest(folder_).step, step);
    EXPECT_FALSE(read_summary(folder_ + "/summary.json").completed);
    EXPECT_EQ(read_events(folder_, "end").back()["reason"], "signal");
  }
  void go_on() { EXPECT_TRUE(train(recipe_, TinyTask(), quiet(folder_)).completed); }

  ScratchFolder scratch_;
  Recipe recipe_ = tiny_recipe();
  std::string whole_, folder_;
};

// Otherwise the comparisons of the other tests would compare nothing.
TEST_F(Resume, ARunLeavesItsCurve) {
  std::vector<std::pair<std::string, int64_t>> found;
  for (const Json& event : read_events(whole_)) found.emplace_back(event["event"], event["step"]);
  const std::vector<std::pair<std::string, int64_t>> expected = {
      {"start", 0},      {"train", 3},       {"validation", 4}, {"train", 6},
      {"validation", 8}, {"train", 9},       {"train", 12},     {"validation", 12},
      {"train", 13},     {"validation", 13}, {"end", 13}};
  EXPECT_EQ(found, expected);
  EXPECT_EQ(read_events(whole_, "end")[0]["reason"], "steps");
  EXPECT_EQ(newest(whole_).step, 13);
}

TEST_F(Resume, AnUninterruptedRunRepeatsItself) {
  train(recipe_, TinyTask(), quiet(folder_));
  expect_same_run(folder_, whole_);
}

TEST_F(Resume, IsExactAfterSigtermWithinAStep) {
  TinyTask task;
  // The second micro-batch of step 7.
  task.on_train_batch = [](int64_t index) {
    if (index == 13) std::raise(SIGTERM);
  };
  stop_at(task, 7);
  go_on();
  expect_same_run(folder_, whole_);
}

TEST_F(Resume, IsExactAfterManyStops) {
  for (int64_t step : {1, 2, 5, 6, 12}) {
    TinyTask task;
    task.on_train_batch = [&](int64_t index) {
      if (index == 2 * step - 1) std::raise(SIGINT);
    };
    stop_at(task, step);
  }
  go_on();
  expect_same_run(folder_, whole_);
}

TEST_F(Resume, IsExactAfterAStopWithinValidation) {
  TinyTask task;
  task.on_validation_batch = [](int64_t index) {
    if (index == 1) std::raise(SIGTERM);
  };
  stop_at(task, 4);
  EXPECT_THAT(read_events(folder_, "validation"), IsEmpty());
  go_on();
  expect_same_run(folder_, whole_);
}

TEST_F(Resume, DropsWhatTheLostStepsWrote) {
  TinyTask task;
  task.nan_loss_at = 23;
  EXPECT_THROW(train(recipe_, task, quiet(folder_)), Error);
  EXPECT_EQ(newest(folder_).step, 10);
  EXPECT_EQ(read_events(folder_, "error").size(), 1);
  std::ofstream(folder_ + "/metrics.jsonl", std::ios::app) << "{\"event\": \"tra";
  go_on();
  expect_same_run(folder_, whole_);
  EXPECT_THAT(read_events(folder_, "error"), IsEmpty());
}

TEST_F(Resume, FallsBackFromATornCheckpoint) {
  train(recipe_, TinyTask(), quiet(folder_));
  const std::string newest_folder = folder_ + "/checkpoints/step_00000013";
  ASSERT_TRUE(std::filesystem::exists(newest_folder + "/model.safetensors"));
  std::filesystem::resize_file(newest_folder + "/model.safetensors", 100);
  ASSERT_EQ(newest(folder_).step, 10);
  ::testing::internal::CaptureStderr();
  go_on();
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("step_00000013"));
  const auto warnings = read_events(folder_, "warning");
  ASSERT_EQ(warnings.size(), 1);
  EXPECT_THAT(std::string(warnings[0]["message"]), HasSubstr("step_00000013"));
  expect_same_run(folder_, whole_);
}

TEST_F(Resume, ACompletedRunReturnsItsSummary) {
  TinyTask task;
  task.on_train_batch = [](int64_t) { FAIL() << "a completed run must not train"; };
  RunOptions options = quiet(whole_);
  options.quiet = false;
  ::testing::internal::CaptureStderr();
  const RunSummary summary = train(recipe_, task, options);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("complete already, at step 13"));
  EXPECT_TRUE(summary.completed);
  EXPECT_EQ(summary.step, 13);
  EXPECT_EQ(summary.best_metrics, read_summary(whole_ + "/summary.json").best_metrics);
}

TEST_F(Resume, ACompletedRunWithoutItsSummaryWritesItAgain) {
  const RunSummary before = read_summary(whole_ + "/summary.json");
  std::filesystem::remove(whole_ + "/summary.json");
  EXPECT_TRUE(train(recipe_, TinyTask(), quiet(whole_)).completed);
  EXPECT_EQ(read_summary(whole_ + "/summary.json").final_metrics, before.final_metrics);
}

TEST_F(Resume, MoreStepsGoOn) {
  recipe_.train.steps = 15;
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(train(recipe_, TinyTask(), quiet(whole_)).step, 15);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("train.steps 13 -> 15"));
}

TEST_F(Resume, FreshRefusesAFolderWithACheckpoint) {
  RunOptions options = quiet(whole_);
  options.fresh = true;
  EXPECT_THAT([&] { train(recipe_, TinyTask(), options); },
              ThrowsMessage<Error>(HasSubstr("found a checkpoint of step 13")));
}

TEST_F(Resume, RefusesAnotherModel) {
  recipe_.model.dim = 16;
  recipe_.train.seed = 5;
  recipe_.train.keep = 9;
  EXPECT_THAT(
      [&] { train(recipe_, TinyTask(), quiet(whole_)); },
      ThrowsMessage<Error>(AllOf(HasSubstr("model.dim 8 -> 16"), HasSubstr("train.seed 1 -> 5"),
                                 Not(HasSubstr("train.keep")))));
}

}  // namespace
}  // namespace headloom::train

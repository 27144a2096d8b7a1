#include "headloom/cli/run_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "headloom/base/check.h"
#include "tests/cli/command.h"

namespace headloom::cli {
namespace {

RunLog read(const std::string& text) {
  const TemporaryFolder folder;
  write_text(folder / "metrics.jsonl", text);
  return read_run_log(folder / "metrics.jsonl");
}

constexpr const char* kLog =
    R"({"event":"start","step":0,"parameters":5}
{"event":"train","step":10,"loss":2.0,"lr":0.1,"tokens":1000,"tokens_per_second":500}
{"event":"train","step":20,"loss":null,"lr":0.2,"tokens":3000,"tokens_per_second":1000}
{"event":"validation","step":15,"metrics":{"loss":1.5,"accuracy":0.25},"seconds":3}
{"event":"validation","step":30,"metrics":{"loss":null,"accuracy":0.5},"seconds":3}
{"event":"end","step":30}
)";

TEST(RunLog, HoldsTheCourseOfARun) {
  const RunLog log = read(kLog);
  ASSERT_EQ(log.train.size(), 2u);
  EXPECT_EQ(log.train[0].step, 10);
  EXPECT_EQ(log.train[0].loss, 2.0);
  EXPECT_EQ(log.train[0].lr, 0.1);
  EXPECT_TRUE(std::isnan(log.train[1].loss));
  ASSERT_EQ(log.validation.size(), 2u);
  EXPECT_EQ(metric_of(log.validation[0].metrics, "accuracy"), 0.25);
  EXPECT_TRUE(std::isnan(metric_of(log.validation[1].metrics, "loss")));
  EXPECT_TRUE(std::isnan(metric_of(log.validation[1].metrics, "no such metric")));
}

TEST(RunLog, TimesAreTokensOverRates) {
  const RunLog log = read(kLog);
  EXPECT_DOUBLE_EQ(log.train[0].seconds, 2.0);
  EXPECT_DOUBLE_EQ(log.train[1].seconds, 4.0);
  EXPECT_DOUBLE_EQ(log.validation[0].seconds, 3.0) << "between the steps around it";
  EXPECT_DOUBLE_EQ(log.validation[1].seconds, 4.0) << "after the last step";
}

TEST(RunLog, LeavesOutALastLineThatIsCutShort) {
  std::string text = kLog;
  text.append(R"({"event":"train","st)");
  EXPECT_EQ(read(text).train.size(), 2u);
  EXPECT_EQ(read("").train.size(), 0u);
}

TEST(RunLog, RefusesOtherBrokenLines) {
  try {
    read("{\"event\":\"start\"}\nrubbish\n{}\n");
    FAIL() << "expected a refusal";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("metrics.jsonl:2: expected a JSON object"));
  }
  EXPECT_THROW(read_run_log("/no/such/file"), Error);
}

TEST(MeanSeries, AveragesStepsThatAllRunsHave) {
  const std::vector<Curve> runs{{{1, 10, 4.0}, {2, 20, 2.0}, {3, 30, 1.0}},
                                {{1, 14, 6.0}, {2, 26, 1.0}}};
  const report::Series steps = mean_series("x", runs, Across::kSteps);
  using Points = std::vector<std::pair<double, double>>;
  EXPECT_EQ(steps.points, (Points{{1, 5.0}, {2, 1.5}}));
  EXPECT_EQ(steps.band, (Points{{4.0, 6.0}, {1.0, 2.0}}));
  EXPECT_EQ(mean_series("x", runs, Across::kSeconds).points, (Points{{12, 5.0}, {23, 1.5}}));
}

TEST(MeanSeries, HasNoBandForOneRun) {
  EXPECT_TRUE(mean_series("x", {{{1, 10, 4.0}}}, Across::kSteps).band.empty());
  EXPECT_TRUE(mean_series("x", {}, Across::kSteps).points.empty());
}

}  // namespace
}  // namespace headloom::cli

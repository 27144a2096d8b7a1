#include "headloom/train/schedule.h"

#include <gmock/gmock.h>

#include <cmath>
#include <numbers>

#include "headloom/base/check.h"
#include "tests/train/temporary_folder.h"

namespace headloom::train {
namespace {

using headloom::testing::message_of;
using ::testing::HasSubstr;

constexpr double kLr = 0.4;
constexpr int64_t kRunSteps = 110;

ScheduleConfig schedule(const std::string& name, int64_t warmup, double min_ratio = 0.0,
                        int64_t steps = 0) {
  ScheduleConfig config;
  config.name = name;
  config.warmup = warmup;
  config.min_ratio = min_ratio;
  config.steps = steps;
  return config;
}

double rate(const ScheduleConfig& config, int64_t step) {
  return learning_rate(config, kLr, kRunSteps, step);
}

TEST(Schedule, WarmUpIsLinearForAll) {
  for (const char* name : {"constant", "linear", "cosine", "inverse_sqrt"}) {
    const ScheduleConfig config = schedule(name, 10, 0.1);
    EXPECT_DOUBLE_EQ(rate(config, 1), kLr / 10) << name;
    EXPECT_DOUBLE_EQ(rate(config, 9), kLr * 0.9) << name;
    EXPECT_DOUBLE_EQ(rate(config, 10), kLr) << name;
    EXPECT_LE(rate(config, 11), kLr) << name;
  }
}

TEST(Schedule, Constant) {
  EXPECT_EQ(rate(schedule("constant", 0), 1), kLr);
  EXPECT_EQ(rate(schedule("constant", 10), 60), kLr);
  EXPECT_EQ(rate(schedule("constant", 10), 1000), kLr);
}

TEST(Schedule, Linear) {
  const ScheduleConfig config = schedule("linear", 10, 0.2);
  EXPECT_DOUBLE_EQ(rate(config, 35), kLr * 0.8);
  EXPECT_DOUBLE_EQ(rate(config, 60), kLr * 0.6);
  EXPECT_DOUBLE_EQ(rate(config, kRunSteps), kLr * 0.2);
  EXPECT_DOUBLE_EQ(rate(config, kRunSteps + 5), kLr * 0.2);
  EXPECT_DOUBLE_EQ(rate(schedule("linear", 0), 1), kLr * 109 / 110);
  EXPECT_EQ(rate(schedule("linear", 0), kRunSteps), 0.0);
}

TEST(Schedule, Cosine) {
  const ScheduleConfig config = schedule("cosine", 10, 0.2);
  EXPECT_DOUBLE_EQ(rate(config, 60), kLr * (0.2 + 0.8 * 0.5));
  EXPECT_DOUBLE_EQ(rate(config, 35), kLr * (0.2 + 0.8 * (1 + std::sqrt(0.5)) / 2));
  EXPECT_DOUBLE_EQ(rate(config, kRunSteps), kLr * 0.2);
  EXPECT_DOUBLE_EQ(rate(config, 10 * kRunSteps), kLr * 0.2);
  EXPECT_DOUBLE_EQ(rate(schedule("cosine", 0), 1),
                   kLr * (1 + std::cos(std::numbers::pi / kRunSteps)) / 2);
}

TEST(Schedule, InverseSqrt) {
  const ScheduleConfig config = schedule("inverse_sqrt", 10);
  EXPECT_DOUBLE_EQ(rate(config, 40), kLr / 2);
  EXPECT_DOUBLE_EQ(rate(config, 90), kLr / 3);
  EXPECT_DOUBLE_EQ(rate(config, 1000), kLr / 10);
  EXPECT_DOUBLE_EQ(rate(schedule("inverse_sqrt", 0), 1), kLr);
  EXPECT_DOUBLE_EQ(rate(schedule("inverse_sqrt", 0), 4), kLr / 2);
}

TEST(Schedule, OwnEndComesBeforeTheRuns) {
  const ScheduleConfig config = schedule("linear", 10, 0.0, 20);
  EXPECT_DOUBLE_EQ(rate(config, 15), kLr / 2);
  EXPECT_EQ(rate(config, 20), 0.0);
  EXPECT_EQ(rate(config, 21), 0.0);
}

TEST(Schedule, WarmUpBeyondTheEndIsFollowedByTheLastValue) {
  const ScheduleConfig config = schedule("cosine", 30, 0.25, 20);
  EXPECT_DOUBLE_EQ(rate(config, 20), kLr * 20 / 30);
  EXPECT_DOUBLE_EQ(rate(config, 30), kLr * 0.25);
}

TEST(Schedule, RefusesByName) {
  const auto message = [](const ScheduleConfig& config, int64_t step = 1) {
    return message_of<Error>([&] { rate(config, step); });
  };
  EXPECT_THAT(message(schedule("cosinus", 10)),
              AllOf(HasSubstr("expected one of constant, linear, cosine, inverse_sqrt"),
                    HasSubstr("found \"cosinus\". Did you mean \"cosine\"?")));
  EXPECT_THAT(message(schedule("linear", 0), 0), HasSubstr("found step 0"));
  EXPECT_THAT(message(schedule("linear", -1)), HasSubstr("warmup of 0 steps or more; found -1"));
  EXPECT_THAT(message(schedule("linear", 0, 0.0, -2)), HasSubstr("found -2"));
  EXPECT_THAT(message(schedule("linear", 0, 1.5)), HasSubstr("min_ratio from 0 to 1; found 1.5"));
}

}  // namespace
}  // namespace headloom::train

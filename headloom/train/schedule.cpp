#include "headloom/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "headloom/base/check.h"
#include "headloom/base/nearest.h"

namespace headloom::train {
namespace {

// How much of the way from the end of the warm-up to the schedule's end is behind, in [0, 1].
double progress(const ScheduleConfig& schedule, int64_t run_steps, int64_t step) {
  const int64_t end = schedule.steps > 0 ? schedule.steps : run_steps;
  if (step >= end) return 1.0;
  return static_cast<double>(step - schedule.warmup) / static_cast<double>(end - schedule.warmup);
}

void check(const ScheduleConfig& schedule, int64_t step) {
  HEADLOOM_CHECK(step >= 1, "schedule", "steps that count from 1", cat("step ", step));
  HEADLOOM_CHECK(schedule.warmup >= 0, "schedule", "a warmup of 0 steps or more",
                 cat(schedule.warmup));
  HEADLOOM_CHECK(schedule.steps >= 0, "schedule", "an end after 0 steps or more",
                 cat(schedule.steps));
  HEADLOOM_CHECK(schedule.min_ratio >= 0.0 && schedule.min_ratio <= 1.0, "schedule",
                 "a min_ratio from 0 to 1", cat(schedule.min_ratio));
}

// The share of the peak rate after warm-up.
double share(const ScheduleConfig& schedule, int64_t run_steps, int64_t step) {
  const double fall = 1.0 - schedule.min_ratio;
  if (schedule.name == "constant") return 1.0;
  if (schedule.name == "linear") return 1.0 - fall * progress(schedule, run_steps, step);
  if (schedule.name == "cosine") {
    const double angle = std::numbers::pi * progress(schedule, run_steps, step);
    return schedule.min_ratio + fall * (1.0 + std::cos(angle)) / 2.0;
  }
  if (schedule.name == "inverse_sqrt") {
    const auto peak = static_cast<double>(std::max<int64_t>(schedule.warmup, 1));
    return std::sqrt(peak / static_cast<double>(step));
  }
  const std::vector<std::string> names = {"constant", "linear", "cosine", "inverse_sqrt"};
  const std::string nearest = nearest_name(schedule.name, names);
  fail("schedule", cat("one of ", join(names)), cat('"', schedule.name, '"'),
       nearest.empty() ? "" : cat("Did you mean \"", nearest, "\"?"));
}

}  // namespace

double learning_rate(const ScheduleConfig& schedule, double lr, int64_t run_steps, int64_t step) {
  check(schedule, step);
  const double after_warmup = share(schedule, run_steps, std::max(step, schedule.warmup));
  if (step >= schedule.warmup) return lr * after_warmup;
  return lr * (static_cast<double>(step) / static_cast<double>(schedule.warmup));
}

}  // namespace headloom::train

#include "headloom/train/telemetry.h"

#include <gmock/gmock.h>

#include <sys/resource.h>

#include <csignal>
#include <sstream>

#include "headloom/base/check.h"
#include "headloom/train/ema.h"
#include "headloom/train/memory.h"
#include "headloom/train/signals.h"
#include "tests/train/tiny_task.h"

namespace headloom::train {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::ThrowsMessage;

std::string read_all(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

TEST(ProgressLine, ShowsWhatAPersonWants) {
  ProgressLine line{20, 100, 1.23456, 1e-3, 12345.0, 65.0, "accuracy 0.5000"};
  EXPECT_EQ(format_progress(line),
            "step 20/100  loss 1.2346  lr 1.00e-03  12.3k tokens/s  1m05s left  accuracy 0.5000");
  line.seconds_left = -1.0;
  line.validation.clear();
  line.tokens_per_second = 2.5e6;
  EXPECT_EQ(format_progress(line), "step 20/100  loss 1.2346  lr 1.00e-03  2.5M tokens/s");
}

TEST(ProgressLine, Durations) {
  EXPECT_EQ(format_duration(0.2), "0s");
  EXPECT_EQ(format_duration(59.6), "1m00s");
  EXPECT_EQ(format_duration(7384.0), "2h03m");
  EXPECT_EQ(format_duration(3.0 * 86400 + 4 * 3600), "3d04h");
  EXPECT_EQ(format_duration(-3.0), "0s");
}

const ProgressLine kLine{1, 2, 3.0, 4.0, 5.0, -1.0, ""};

TEST(Display, AddsLinesWhenDueWithoutATerminal) {
  std::ostringstream out;
  DisplayOptions options;
  options.label = "run";
  {
    Display display(out, options);
    display.progress(kLine, false);
    display.progress(kLine, true);
    display.note("note");
  }
  EXPECT_EQ(out.str(), "run  " + format_progress(kLine) + "\nrun  note\n");
}

TEST(Display, RewritesOneLineOnATerminal) {
  std::ostringstream out;
  DisplayOptions options;
  options.terminal = options.color = true;
  options.columns = 11;
  {
    Display display(out, options);
    display.progress(kLine, false);
    display.progress(kLine, false);
    display.warning("w");
    display.progress(kLine, false);
  }
  // The second came too soon to be drawn; a line that stays wipes the rewritten one first.
  EXPECT_EQ(out.str(),
            "\r\033[Kstep 1/2  \r\033[K\033[33mwarning: w\033[0m\n\r\033[Kstep 1/2  \r\033[K");
}

TEST(Display, QuietShowsWarningsAlone) {
  std::ostringstream out;
  DisplayOptions options;
  options.quiet = true;
  Display display(out, options);
  display.progress(kLine, true);
  display.note("note");
  display.warning("w");
  EXPECT_EQ(out.str(), "warning: w\n");
}

TEST(Display, NoColorIsHonoured) {
  ::setenv("NO_COLOR", "1", 1);
  EXPECT_FALSE(detect_display().color);
  ::unsetenv("NO_COLOR");
}

TEST(MetricsFile, DropsLaterAndTornLines) {
  const ScratchFolder scratch;
  const std::string path = scratch / "m.jsonl";
  std::ofstream(path) << "{\"step\":1}\n{\"step\":3}\nnonsense\n{\"step\":2}\n{\"step\":2,";
  MetricsFile(path, 2).append("{\"step\":4}");
  EXPECT_EQ(read_all(path), "{\"step\":1}\n{\"step\":2}\n{\"step\":4}\n");
}

TEST(MetricsFile, StartsAnewWithoutACheckpoint) {
  const ScratchFolder scratch;
  const std::string path = scratch / "m.jsonl";
  std::ofstream(path) << "{\"step\":0}\n";
  MetricsFile(path, 0).append("{}");
  EXPECT_EQ(read_all(path), "{}\n");
}

TEST(MetricsFile, KeepsWhatTheDiskRefuses) {
  const ScratchFolder scratch;
  const SignalGuard ignores_file_size_signals;
  MetricsFile file(scratch / "m.jsonl", 0);
  rlimit old;
  ::getrlimit(RLIMIT_FSIZE, &old);
  rlimit small = old;
  small.rlim_cur = 10;
  EXPECT_TRUE(file.append("first"));
  ::setrlimit(RLIMIT_FSIZE, &small);
  const bool second = file.append("second");
  ::setrlimit(RLIMIT_FSIZE, &old);
  EXPECT_FALSE(second);
  EXPECT_EQ(read_all(scratch / "m.jsonl"), "first\n") << "half a line must not stay";
  EXPECT_TRUE(file.append("third"));
  EXPECT_EQ(read_all(scratch / "m.jsonl"), "first\nsecond\nthird\n");
}

TEST(Counters, ReadBackAsWritten) {
  Counters counters;
  counters.step = 5;
  counters.train_seconds = 0.1 + 0.2;
  counters.best_metrics = {{"b", 1.0 / 3.0}, {"a", 2.0}};
  counters.loss_sum = 1e-300;
  counters.interval_tokens = int64_t{1} << 60;
  const Counters read = read_counters(to_values(counters));
  EXPECT_EQ(read.step, 5);
  EXPECT_EQ(read.train_seconds, counters.train_seconds);
  EXPECT_EQ(read.best_metrics, counters.best_metrics);
  EXPECT_EQ(read.loss_sum, counters.loss_sum);
  EXPECT_EQ(read.interval_tokens, counters.interval_tokens);
  EXPECT_THAT([] { read_counters({}); },
              ThrowsMessage<Error>(HasSubstr("expected the loop's counters; found none")));
  EXPECT_THROW(read_counters({{"counters", "{\"step\":\"x\"}"}}), Error);
}

TEST(Signals, TheFirstIsRememberedAndTheSecondKills) {
  {
    const SignalGuard guard;
    EXPECT_EQ(SignalGuard::received(), 0);
    std::raise(SIGTERM);
    EXPECT_EQ(SignalGuard::received(), SIGTERM);
  }
  const auto twice = [] {
    const SignalGuard guard;
    std::raise(SIGINT);
    std::raise(SIGTERM);
  };
  EXPECT_EXIT(twice(), ::testing::KilledBySignal(SIGTERM), "");
}

TEST(Signals, AnIgnoredSignalStaysIgnored) {
  std::signal(SIGINT, SIG_IGN);
  {
    const SignalGuard guard;
    std::raise(SIGINT);
    EXPECT_EQ(SignalGuard::received(), 0);
  }
  EXPECT_EQ(std::signal(SIGINT, SIG_DFL), SIG_IGN);
}

TEST(Memory, PeakGrowsWithUse) {
  const int64_t before = peak_memory_bytes();
  ASSERT_GT(before, 0);
  const at::Tensor block = torch::ones({64, 1 << 20}, torch::kByte) * 2;
  EXPECT_GE(peak_memory_bytes(), before);
  EXPECT_GE(peak_memory_bytes(), block.numel());
}

TEST(WeightAverage, FollowsItsFormulaAndSwaps) {
  TinyModel model(4, 0.0);
  at::NoGradGuard no_grad;
  at::Tensor bias = model.named_parameters()["output.bias"];
  bias.fill_(0.0);
  WeightAverage fresh(0.3, model);
  double expected = 0.0;
  for (int step = 1; step <= 5; ++step) {
    bias.fill_(step);
    fresh.update(step);
    const double decay = std::min(0.3, (1.0 + step) / (10.0 + step));
    expected = decay * expected + (1.0 - decay) * step;
  }
  {
    const SwapGuard averaged(&fresh);
    EXPECT_NEAR(bias[0].item<double>(), expected, 1e-6);
  }
  EXPECT_EQ(bias[0].item<double>(), 5.0);
  NamedTensors state = fresh.state();
  state.pop_back();
  EXPECT_THAT([&] { fresh.load(state); }, ThrowsMessage<Error>(HasSubstr("is missing")));
}

TEST(Weights, TiedParametersCountOnce) {
  struct Tied : torch::nn::Module {
    Tied() {
      const at::Tensor weight = register_parameter("a", torch::zeros({3, 2}));
      register_parameter("b", weight);
      register_parameter("c", torch::zeros({5}));
    }
  };
  const Tied model;
  EXPECT_EQ(count_parameters(model), 11);
  EXPECT_EQ(model_tensors(model).size(), 2);
}

}  // namespace
}  // namespace headloom::train

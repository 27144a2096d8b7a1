#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "headloom/mechanisms/registry.h"
#include "tests/cli/command.h"

// From a recipe to a text, a table and a report, by the command alone.
namespace headloom::cli {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr const char* kRecipe = R"(
[task]
name = "language_model"
path = "text.txt"
context = 16

[model]
dim = 16
layers = 2
heads = 2
ffn = 32
max_length = 48

[mixer]
name = "dot_product"

[optimizer]
lr = 0.01

[train]
steps = 6
batch_size = 2
log_every = 2
validate_every = 3
threads = 1

[compare]
mechanisms = ["dot_product"]
seeds = [1, 2]
)";

class EndToEnd : public testing::Test {
 protected:
  EndToEnd() {
    write_text(folder_ / "tiny.toml", kRecipe);
    std::string text;
    for (int i = 0; i < 40; ++i) text += "the quick brown fox jumps over the lazy dog\n";
    write_text(folder_ / "text.txt", text);
  }

  Outcome run(std::vector<std::string> arguments, const std::string& input = "",
              const std::string& prelude = "eval \"$COMMAND\"") {
    return run_command(arguments, folder_.path(), input, prelude);
  }

  void train() {
    const Outcome outcome = run({"train", "tiny.toml", "--quiet"});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    EXPECT_EQ(outcome.err, "");
  }

  const TemporaryFolder folder_;
};

TEST_F(EndToEnd, TrainLeavesARunAndSaysHowItWent) {
  const Outcome outcome = run({"train", "tiny.toml"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("nats_per_byte"));
  EXPECT_THAT(outcome.out, HasSubstr("runs/tiny/report.html"));
  for (const char* name : {"recipe.toml", "metrics.jsonl", "summary.json", "report.html"}) {
    EXPECT_TRUE(fs::exists(folder_ / ("runs/tiny/" + std::string(name)))) << name;
  }
  EXPECT_THAT(read_text(folder_ / "runs/tiny/report.html"), HasSubstr("Training loss"));
}

TEST_F(EndToEnd, OverridesAndFolderApply) {
  const Outcome outcome = run({"train", "tiny.toml", "--folder", "elsewhere", "--set",
                               "train.steps=2", "--set", "model.layers=1"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  const auto summary = nlohmann::json::parse(read_text(folder_ / "elsewhere/summary.json"));
  EXPECT_EQ(summary["step"], 2);
  EXPECT_THAT(read_text(folder_ / "elsewhere/recipe.toml"), HasSubstr("layers = 1"));
}

TEST_F(EndToEnd, FreshRefusesAFolderWithARun) {
  train();
  const Outcome outcome = run({"train", "tiny.toml", "--fresh"});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("runs/tiny"));
}

TEST_F(EndToEnd, MistakesInARecipeAreBadInput) {
  const Outcome outcome = run({"train", "tiny.toml", "--set", "train.stps=3"});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("steps"));
  EXPECT_EQ(run({"train", "tiny.toml", "--set", "mixer.name=no_such"}).exit_code, 2);
  EXPECT_FALSE(fs::exists(folder_ / "runs/tiny/summary.json"));
}

TEST_F(EndToEnd, ALossThatIsNotFiniteIsAFailedRun) {
  const Outcome outcome = run(
      {"train", "tiny.toml", "--quiet", "--set", "optimizer.lr=1e30", "--set", "train.steps=50"});
  EXPECT_EQ(outcome.exit_code, 1) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("finite"));
}

TEST_F(EndToEnd, AnInterruptedRunSavesAndGoesOn) {
  const Outcome stopped =
      run({"train", "tiny.toml", "--quiet", "--set", "train.steps=200000"}, "",
          "eval \"exec $COMMAND\" & child=$!\n"
          "while ! grep -q '\"train\"' runs/tiny/metrics.jsonl 2>/dev/null; do sleep 0.05; done\n"
          "kill -TERM $child; wait $child");
  EXPECT_EQ(stopped.exit_code, 130) << stopped.err;
  const Outcome resumed = run({"inspect", "runs/tiny"});
  EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_THAT(resumed.out, HasSubstr("steps = 200000"));
}

TEST_F(EndToEnd, EvalMeasuresWhatTrainingMeasured) {
  train();
  const Outcome table = run({"eval", "runs/tiny"});
  EXPECT_EQ(table.exit_code, 0) << table.err;
  EXPECT_THAT(table.out, HasSubstr("nats_per_byte"));
  const Outcome json = run({"eval", "runs/tiny", "--json"});
  ASSERT_EQ(json.exit_code, 0) << json.err;
  const auto measured = nlohmann::json::parse(json.out);
  const auto summary = nlohmann::json::parse(read_text(folder_ / "runs/tiny/summary.json"));
  EXPECT_DOUBLE_EQ(measured["metrics"]["nats_per_byte"].get<double>(),
                   summary["best_metrics"]["nats_per_byte"].get<double>());
}

TEST_F(EndToEnd, GenerateContinuesAPrompt) {
  train();
  const std::vector<std::string> command{"generate", "runs/tiny", "--prompt",
                                         "the ",     "--length",  "8"};
  const Outcome outcome = run(command);
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, StartsWith("the "));
  EXPECT_EQ(outcome.out.size(), 13u) << "prompt, 8 bytes, the end of the line";
  EXPECT_EQ(run(command).out, outcome.out) << "the same seed gives the same text";
  const Outcome from_stdin = run({"generate", "runs/tiny", "--length", "8"}, "the \n");
  EXPECT_EQ(from_stdin.out, outcome.out) << from_stdin.err;
  EXPECT_EQ(run({"generate", "runs/tiny", "--prompt", "a", "--weights", "newest"}).exit_code, 0);
  EXPECT_EQ(run({"generate", "runs/tiny", "--prompt", "a", "--weights", "none"}).exit_code, 2);
}

TEST_F(EndToEnd, GenerateMakesSeveralTexts) {
  train();
  const Outcome outcome = run(
      {"generate", "runs/tiny", "--prompt", "a", "--length", "3", "--samples", "2", "--seed", "5"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, StartsWith("--- 1\na"));
  EXPECT_THAT(outcome.out, HasSubstr("\n--- 2\na"));
}

TEST_F(EndToEnd, GenerateRefusesWhatTheModelCannotDo) {
  train();
  const Outcome empty = run({"generate", "runs/tiny", "--prompt", ""});
  EXPECT_EQ(empty.exit_code, 2);
  EXPECT_THAT(empty.err, HasSubstr("at least one token"));
  const Outcome far = run({"generate", "runs/tiny", "--prompt", "x", "--length", "60"});
  EXPECT_EQ(far.exit_code, 0) << "beyond the 48 tokens that the model holds: " << far.err;
}

TEST_F(EndToEnd, InspectShowsRunCheckpointAndFile) {
  train();
  const Outcome outcome = run({"inspect", "runs/tiny"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  for (const char* part : {"nats_per_byte", "Layers", "dot_product", "float32", "[256, 16]",
                           "Training state", "[optimizer]"}) {
    EXPECT_THAT(outcome.out, HasSubstr(part));
  }
  const std::string checkpoint = "runs/tiny/checkpoints/best";
  EXPECT_EQ(run({"inspect", checkpoint}).exit_code, 0);
  const Outcome file = run({"inspect", checkpoint + "/model.safetensors"});
  EXPECT_EQ(file.exit_code, 0) << file.err;
  EXPECT_THAT(file.out, HasSubstr("embedding"));
}

// The baseline and another mechanism, where this build has one.
std::string two_mechanisms() {
  for (const Mechanism* mechanism : mechanisms()) {
    if (mechanism->name == "light_conv" || mechanism->name == "talking_heads") {
      return "dot_product," + mechanism->name;
    }
  }
  return "dot_product";
}

TEST_F(EndToEnd, CompareWritesTableReportAndNumbers) {
  const Outcome outcome =
      run({"compare", "tiny.toml", "--mechanisms", two_mechanisms(), "--quiet"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("difference to dot_product"));
  EXPECT_THAT(outcome.out, HasSubstr("baseline"));
  const auto numbers =
      nlohmann::json::parse(read_text(folder_ / "runs/tiny_compare/comparison.json"));
  EXPECT_EQ(numbers["mechanisms"][0]["metric"]["count"], 2);
  EXPECT_GT(numbers["mechanisms"][0]["peak_memory_bytes"], 0);
  const std::string html = read_text(folder_ / "runs/tiny_compare/report.html");
  EXPECT_THAT(html, HasSubstr("Training loss by time"));
  EXPECT_THAT(html, HasSubstr("headloom compare tiny.toml --folder runs/tiny_compare"));
  EXPECT_THAT(html, Not(HasSubstr("http")));
}

TEST_F(EndToEnd, CompareKeepsFinishedRuns) {
  ASSERT_EQ(run({"compare", "tiny.toml", "--quiet", "--seeds", "1"}).exit_code, 0);
  const std::string summary = folder_ / "runs/tiny_compare/dot_product/seed_1/summary.json";
  const auto written = fs::last_write_time(summary);
  const Outcome again = run({"compare", "tiny.toml", "--quiet", "--seeds", "1,2"});
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_EQ(fs::last_write_time(summary), written);
  EXPECT_TRUE(fs::exists(folder_ / "runs/tiny_compare/dot_product/seed_2/summary.json"));
}

TEST_F(EndToEnd, CompareRefusesRunsOfAnotherRecipe) {
  ASSERT_EQ(run({"compare", "tiny.toml", "--quiet", "--seeds", "1"}).exit_code, 0);
  const Outcome outcome = run({"compare", "tiny.toml", "--quiet", "--set", "train.steps=7"});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("Give another --folder"));
}

TEST_F(EndToEnd, CompareFindsMistakesBeforeItTrains) {
  for (const std::vector<std::string>& extra :
       std::vector<std::vector<std::string>>{{"--mechanisms", "dot_product,dot_prodct"},
                                             {"--mechanisms", "dot_product,dot_product"},
                                             {"--seeds", "1,1"},
                                             {"--seeds", "-1"},
                                             {"--set", "model.heads=3"}}) {
    std::vector<std::string> command{"compare", "tiny.toml"};
    command.insert(command.end(), extra.begin(), extra.end());
    EXPECT_EQ(run(command).exit_code, 2) << extra[1];
  }
  EXPECT_FALSE(fs::exists(folder_ / "runs"));
}

TEST_F(EndToEnd, CompareStopsOnASignalAndGoesOn) {
  const Outcome stopped =
      run({"compare", "tiny.toml", "--quiet", "--set", "train.steps=200000"}, "",
          "eval \"exec $COMMAND\" & child=$!\n"
          "log=runs/tiny_compare/dot_product/seed_1/metrics.jsonl\n"
          "while ! grep -q '\"train\"' $log 2>/dev/null; do sleep 0.05; done\n"
          // Not INT: a shell starts background commands with that ignored, and ignored it stays.
          "kill -TERM $child; wait $child");
  ASSERT_EQ(stopped.exit_code, 130) << stopped.err;
  EXPECT_THAT(stopped.err, HasSubstr("interrupted"));
  EXPECT_TRUE(fs::exists(folder_ / "runs/tiny_compare/dot_product/seed_1/checkpoints"));
  EXPECT_FALSE(fs::exists(folder_ / "runs/tiny_compare/dot_product/seed_2"));
}

}  // namespace
}  // namespace headloom::cli

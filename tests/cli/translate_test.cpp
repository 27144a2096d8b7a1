// The filter, on a model that has hardly trained: what it says is noise, but always the same.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/cli/command.h"

namespace headloom::cli {
namespace {

namespace fs = std::filesystem;
using testing::Each;
using testing::EndsWith;
using testing::HasSubstr;
using testing::SizeIs;
using testing::StartsWith;

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

class Translate : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TemporaryFolder;
    const std::string recipe = HEADLOOM_SOURCE_DIR "/recipes/smoke/translation.toml";
    trained_ = new Outcome(
        run_command({"train", recipe, "--folder", "run", "--quiet", "--set", "train.steps=30",
                     "--set", "train.keep=4", "--set", "train.threads=1", "--set", "train.ema=0.9"},
                    folder_->path()));
  }
  static void TearDownTestSuite() {
    delete trained_;
    delete folder_;
  }
  void SetUp() override { ASSERT_EQ(trained_->exit_code, 0) << trained_->err; }

  static Outcome translate(const std::string& input, std::vector<std::string> arguments = {}) {
    arguments.insert(arguments.begin(), {"translate", "run"});
    return run_command(arguments, folder_->path(), input);
  }

  inline static TemporaryFolder* folder_ = nullptr;
  inline static Outcome* trained_ = nullptr;
};

TEST_F(Translate, ARunEndsWithBleuAndKeepsItsTokenizer) {
  const auto summary = nlohmann::json::parse(read_text(*folder_ / "run/summary.json"));
  EXPECT_TRUE(summary["final_metrics"].contains("bleu"));
  EXPECT_TRUE(summary["final_metrics"].contains("token_accuracy"));
  EXPECT_EQ(summary["main_metric"], "bleu");
  EXPECT_TRUE(fs::exists(*folder_ / "run/tokenizer.json"));
  EXPECT_THAT(read_text(*folder_ / "run/report.html"), HasSubstr("bleu"));
}

TEST_F(Translate, IsAFilterThatKeepsTheOrder) {
  const std::string input = "one two three four\nfive\n\nsix seven\r\nfive\n";
  const Outcome whole = translate(input);
  ASSERT_EQ(whole.exit_code, 0) << whole.err;
  EXPECT_EQ(whole.err, "");
  const auto lines = lines_of(whole.out);
  ASSERT_THAT(lines, SizeIs(5));
  EXPECT_EQ(lines[1], lines[4]);
  EXPECT_EQ(lines[2], "");
  EXPECT_EQ(translate("six seven\n").out, lines[3] + '\n');
  EXPECT_EQ(translate(input, {"--window", "2", "--batch-tokens", "10"}).out, whole.out);
  EXPECT_EQ(translate(input, {"--no-cache"}).out, whole.out);
  EXPECT_EQ(translate("").out, "");
}

TEST_F(Translate, BytesThatAreNoTextAreNoCrash) {
  const std::string input("\xef\xbb\xbfone\n\xff\xfe\x80 two\n\0\n", 16);
  const Outcome outcome = translate(input);
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(lines_of(outcome.out), SizeIs(3));
  EXPECT_EQ(lines_of(outcome.out)[0] + '\n', translate("one\n").out) << "the mark is no text";
}

TEST_F(Translate, ListsTheBestWithScores) {
  const Outcome outcome = translate(
      "one\ntwo\n", {"--n-best", "2", "--beam", "3", "--alpha", "0.5", "--length-penalty", "gnmt"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const auto lines = lines_of(outcome.out);
  ASSERT_THAT(lines, SizeIs(4));
  EXPECT_THAT(lines[0], StartsWith("0 ||| "));
  EXPECT_THAT(lines[3], StartsWith("1 ||| "));
  EXPECT_THAT(lines, Each(HasSubstr(" ||| -")));
}

TEST_F(Translate, PrefixesAreKept) {
  EXPECT_THAT(lines_of(translate("one\ntwo\n", {"--prefix", "7 7"}).out), Each(StartsWith("7 7")));
  write_text(*folder_ / "prefixes", "4\n\n5 6\n");
  const auto lines = lines_of(translate("one\ntwo\none\n", {"--prefix-file", "prefixes"}).out);
  ASSERT_THAT(lines, SizeIs(3));
  EXPECT_THAT(lines[0], StartsWith("4"));
  EXPECT_THAT(lines[2], StartsWith("5 6"));
  const Outcome few = translate("1\n2\n3\n4\n", {"--prefix-file", "prefixes"});
  EXPECT_EQ(few.exit_code, 2);
  EXPECT_THAT(few.err, HasSubstr("prefixes: expected a prefix for each line of the input"));
}

TEST_F(Translate, SaysHowFastItIs) {
  const Outcome outcome = translate("one\n", {"--report-speed", "--beam", "1"});
  EXPECT_THAT(outcome.err, StartsWith("1 sentences in "));
  EXPECT_THAT(outcome.err, HasSubstr("sentences/s (beam 1, cached states)"));
  EXPECT_THAT(translate("one\n", {"--report-speed", "--no-cache"}).err, HasSubstr("no cache"));
}

TEST_F(Translate, MistakesAreNamed) {
  const auto refused = [&](const std::vector<std::string>& arguments, const std::string& input) {
    const Outcome outcome = translate(input, arguments);
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_EQ(outcome.out, "");
    return outcome.err;
  };
  EXPECT_THAT(refused({"--beam", "0"}, ""), HasSubstr("--beam from 1 on; found 0"));
  EXPECT_THAT(refused({"--n-best", "3"}, ""), HasSubstr("--n-best from 1 to the beam, 2; found 3"));
  EXPECT_THAT(refused({"--length-penalty", "gmnt"}, ""), HasSubstr("gnmt"));
  EXPECT_THAT(refused({"--window", "0"}, ""), HasSubstr("--window from 1 on"));
  EXPECT_THAT(refused({"--bam", "1"}, ""), HasSubstr("--beam"));
  EXPECT_THAT(refused({"--prefix", "a", "--prefix-file", "b"}, ""), HasSubstr("both"));
  EXPECT_THAT(refused({"--weights", "absent"}, ""), HasSubstr("no such file"));
  std::string line;
  for (int i = 0; i < 40; ++i) line += "one ";
  EXPECT_THAT(refused({}, "one\n" + line + "\n"), HasSubstr("line 2: expected at most 31 tokens"));
  EXPECT_EQ(translate(line, {"--crop"}).exit_code, 0);
}

TEST_F(Translate, AveragesOfCheckpointsAreWeights) {
  const Outcome averaged = run_command({"average", "run", "--last", "3"}, folder_->path());
  ASSERT_EQ(averaged.exit_code, 0) << averaged.err;
  EXPECT_THAT(averaged.out, EndsWith("into run/average.safetensors\n"));
  EXPECT_THAT(averaged.out, HasSubstr("step_00000020"));
  const Outcome eval =
      run_command({"eval", "run", "--weights", "average.safetensors"}, folder_->path());
  EXPECT_EQ(eval.exit_code, 0) << eval.err;
  for (const char* part : {"bleu", "chrf", "perplexity", "average.safetensors", "tok:none"}) {
    EXPECT_THAT(eval.out, HasSubstr(part));
  }
  EXPECT_EQ(translate("one\n", {"--weights", "run/average.safetensors"}).exit_code, 0);
  const Outcome newest =
      run_command({"eval", "run", "--weights", "newest", "--json"}, folder_->path());
  const auto summary = nlohmann::json::parse(read_text(*folder_ / "run/summary.json"));
  EXPECT_DOUBLE_EQ(nlohmann::json::parse(newest.out)["metrics"]["bleu"].get<double>(),
                   summary["final_metrics"]["bleu"].get<double>());
  EXPECT_EQ(run_command({"average", "run", "--last", "0"}, folder_->path()).exit_code, 2);
  EXPECT_EQ(run_command({"average", "run", "--last", "9"}, folder_->path()).exit_code, 2);
  EXPECT_EQ(run_command({"average", "run", "best", "--last", "1"}, folder_->path()).exit_code, 2);
}

TEST_F(Translate, InspectShowsEachPart) {
  const Outcome outcome = run_command({"inspect", "run"}, folder_->path());
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  for (const char* part : {"encoder 0", "decoder 0", "decoder across 0"}) {
    EXPECT_THAT(outcome.out, HasSubstr(part));
  }
}

// A run of one step in the folder of the task's name.
Outcome train_a_step(const std::string& task, const fs::path& folder) {
  const std::string recipe = HEADLOOM_SOURCE_DIR "/recipes/smoke/" + task + ".toml";
  return run_command({"train", recipe, "--folder", task, "--quiet", "--set", "train.steps=1",
                      "--set", "train.validate_every=1"},
                     folder);
}

TEST_F(Translate, OtherTasksDoNotTranslate) {
  for (const std::string task : {"listops", "span_corruption"}) {
    const Outcome trained = train_a_step(task, folder_->path());
    ASSERT_EQ(trained.exit_code, 0) << trained.err;
    const Outcome outcome = run_command({"translate", task}, folder_->path(), "one\n");
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_THAT(outcome.err, HasSubstr("a run of a task that translates; found task " + task));
  }
}

TEST_F(Translate, TextToTextAnswersLines) {
  const Outcome trained = train_a_step("text_to_text", folder_->path());
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  const Outcome outcome = run_command({"translate", "text_to_text"}, folder_->path(),
                                      "sst2 sentence: a warm rug\n\nsst2 sentence: it tears\n");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  const auto lines = lines_of(outcome.out);
  ASSERT_THAT(lines, SizeIs(3));
  EXPECT_EQ(lines[1], "");
  EXPECT_EQ(run_command({"inspect", "text_to_text"}, folder_->path()).exit_code, 0);
}

}  // namespace
}  // namespace headloom::cli

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "headloom/mechanisms/registry.h"
#include "headloom/tasks/task.h"
#include "tests/cli/command.h"

namespace headloom::cli {
namespace {

using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;
using testing::StartsWith;

// A change here is a change of what people have written into their scripts.
const std::map<std::string, std::set<std::string>> kFlags{
    {"train", {"--help", "--folder", "--set", "--fresh", "--quiet", "--label"}},
    {"eval",
     {"--help", "--set", "--json", "--weights", "--attack", "--examples", "--budget", "--seed",
      "--least-cosine"}},
    {"compare", {"--help", "--folder", "--set", "--mechanisms", "--seeds", "--quiet"}},
    {"generate",
     {"--help", "--prompt", "--length", "--temperature", "--top-k", "--top-p", "--seed",
      "--samples", "--weights"}},
    {"translate",
     {"--help", "--weights", "--beam", "--length-penalty", "--alpha", "--n-best", "--min-length",
      "--no-repeat-ngram", "--prefix", "--prefix-file", "--window", "--batch-tokens", "--crop",
      "--no-cache", "--report-speed", "--set"}},
    {"average", {"--help", "--last", "--output"}},
    {"bench",
     {"--help", "--batch", "--length", "--causal", "--dtype", "--threads", "--rounds", "--seconds",
      "--seed", "--mechanisms", "--set", "--json"}},
    {"data", {"--help"}},
    {"data tokenizer",
     {"--help", "--algorithm", "--size", "--input", "--output", "--min-frequency", "--special",
      "--prefix-space", "--cased", "--alphabet-limit", "--strict"}},
    {"data encode", {"--help", "--tokenizer", "--special-tokens", "--tokens", "--strict"}},
    {"data decode", {"--help", "--tokenizer", "--special-tokens"}},
    {"data score",
     {"--help", "--metric", "--tokenize", "--references", "--hypotheses", "--smoothing",
      "--split-compounds", "--lowercase", "--strict"}},
    {"list", {"--help"}},
    {"inspect", {"--help"}},
    {"report", {"--help", "--output", "--tensorboard"}},
};

// "data score" is two words of a command line.
Outcome help_of(const std::string& command) {
  std::istringstream words(command + " --help");
  std::vector<std::string> arguments;
  for (std::string word; words >> word;) arguments.push_back(word);
  return run_command(arguments);
}

void expect_refusal(const Outcome& outcome, const std::string& part) {
  EXPECT_EQ(outcome.exit_code, 2) << outcome.err;
  EXPECT_EQ(outcome.out, "");
  EXPECT_THAT(outcome.err, StartsWith("headloom: "));
  EXPECT_THAT(outcome.err, HasSubstr(part));
  EXPECT_THAT(outcome.err, Not(HasSubstr("frame #"))) << "no stack trace for a user's mistake";
}

TEST(CommandLine, HelpOfEachCommandShowsExamples) {
  for (const auto& [command, flags] : kFlags) {
    const Outcome outcome = help_of(command);
    EXPECT_EQ(outcome.exit_code, 0);
    EXPECT_EQ(outcome.err, "");
    EXPECT_THAT(outcome.out, HasSubstr("Examples:\n  "));
    EXPECT_THAT(outcome.out, HasSubstr("headloom " + command));
  }
}

TEST(CommandLine, TheSetOfFlagsIsFrozen) {
  for (const auto& [command, flags] : kFlags) {
    std::set<std::string> shown;
    std::istringstream help(help_of(command).out);
    static const std::regex option("^  (?:-[a-z],)?(--[a-z-]+).*");
    for (std::string line; std::getline(help, line);) {
      std::smatch match;
      if (std::regex_match(line, match, option)) shown.insert(match[1]);
    }
    EXPECT_EQ(shown, flags) << command;
  }
}

TEST(CommandLine, TheSetOfCommandsIsFrozen) {
  const std::string help = run_command({"--help"}).out;
  std::set<std::string> shown, known;
  static const std::regex line("\n  ([a-z]+) ");
  const size_t begin = help.find("Commands:");
  ASSERT_NE(begin, std::string::npos);
  const std::string part = help.substr(begin);
  for (auto found = std::sregex_iterator(part.begin(), part.end(), line);
       found != std::sregex_iterator(); ++found) {
    shown.insert((*found)[1]);
  }
  for (const auto& [command, flags] : kFlags) known.insert(command.substr(0, command.find(' ')));
  EXPECT_EQ(shown, known);
}

TEST(CommandLine, ShowsItsVersion) {
  const Outcome outcome = run_command({"--version"});
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(outcome.out, MatchesRegex("headloom [0-9]+\\.[0-9]+\\.[0-9]+ \\(torch [^\n]+\\)\n"));
}

TEST(CommandLine, RefusesToRunWithoutACommand) {
  expect_refusal(run_command({}), "expected a command");
}

TEST(CommandLine, NamesTheNearestCommand) {
  expect_refusal(run_command({"trian", "recipe.toml"}), "found \"trian\". Did you mean train?");
  expect_refusal(run_command({"xyzzyxyzzy"}), "a command among train, eval, compare");
  expect_refusal(run_command({"--versoin"}), "Did you mean --version?");
}

TEST(CommandLine, NamesTheNearestOption) {
  expect_refusal(run_command({"train", "recipe.toml", "--foldr", "x"}), "Did you mean --folder?");
  expect_refusal(run_command({"train", "--foldr=x"}), "Did you mean --folder?");
  expect_refusal(run_command({"generate", "x", "--topk", "4"}), "Did you mean --top-k?");
  expect_refusal(run_command({"data", "scroe"}), "data: expected a command among tokenizer, ");
  expect_refusal(run_command({"data", "scroe"}), "found \"scroe\". Did you mean score?");
  expect_refusal(run_command({"data", "score", "--reference", "x"}), "Did you mean --references?");
}

TEST(CommandLine, RefusesWhatIsTooMuchOrTooLittle) {
  expect_refusal(run_command({"train"}), "RECIPE is required");
  expect_refusal(run_command({"data"}), "See headloom data --help.");
  expect_refusal(run_command({"data", "score"}), "See headloom data score --help.");
  expect_refusal(run_command({"eval", "one", "two"}), "no further argument; found \"two\"");
  expect_refusal(run_command({"train", "x", "--set"}), "--set");
}

TEST(CommandLine, RefusesValuesOfAnotherKind) {
  expect_refusal(run_command({"generate", "x", "--length", "many"}), "--length");
  expect_refusal(run_command({"generate", "x", "--temperature", "-1"}), "--temperature");
  expect_refusal(run_command({"generate", "x", "--top-p", "1.5"}), "--top-p");
  expect_refusal(run_command({"generate", "x", "--samples", "0"}), "--samples");
  expect_refusal(run_command({"compare", "x", "--seeds", "1,two"}), "--seeds");
  expect_refusal(run_command({"list", "recipes"}), "KIND");
}

TEST(CommandLine, RefusesFilesThatAreNotThere) {
  expect_refusal(run_command({"train", "no/such/recipe.toml"}), "no/such/recipe.toml");
  expect_refusal(run_command({"compare", "no/such/recipe.toml"}), "no/such/recipe.toml");
  expect_refusal(run_command({"eval", "no/such/run"}), "no/such/run");
  expect_refusal(run_command({"generate", "no/such/run", "--prompt", "x"}), "no/such/run");
  expect_refusal(run_command({"inspect", "no/such/run"}), "no/such/run");
}

TEST(CommandLine, InspectRefusesWhatIsNeitherRunNorTensors) {
  const TemporaryFolder folder;
  expect_refusal(run_command({"inspect", folder.path()}), "a run folder");
  write_text(folder / "model.safetensors", "not tensors at all");
  expect_refusal(run_command({"inspect", folder / "model.safetensors"}), "model.safetensors");
}

TEST(List, ShowsAllMechanismsAndTasks) {
  const Outcome outcome = run_command({"list"});
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_FALSE(mechanisms().empty());
  for (const Mechanism* mechanism : mechanisms()) {
    EXPECT_THAT(outcome.out, HasSubstr('\n' + mechanism->name + '\n'));
    EXPECT_THAT(outcome.out, HasSubstr(mechanism->summary));
    EXPECT_THAT(outcome.out, HasSubstr(mechanism->paper));
  }
  EXPECT_FALSE(tasks::all_tasks().empty());
  for (const tasks::TaskEntry& task : tasks::all_tasks()) {
    EXPECT_THAT(outcome.out, HasSubstr('\n' + task.name + "\n  " + task.summary));
  }
}

TEST(List, ShowsOneKind) {
  EXPECT_THAT(run_command({"list", "mechanisms"}).out, Not(HasSubstr("[task]")));
  EXPECT_THAT(run_command({"list", "tasks"}).out, Not(HasSubstr("[mixer]")));
}

TEST(Streams, AClosedOutputIsNoCrash) {
  const Outcome closed = run_command({"list"}, ".", "", "eval \"$COMMAND\" >&-");
  EXPECT_EQ(closed.exit_code, 0) << closed.err;
  EXPECT_EQ(closed.err, "");
  const Outcome pipe =
      run_command({"list"}, ".", "", "{ eval \"$COMMAND\"; echo $? >&2; } | exec true");
  EXPECT_EQ(pipe.err, "0\n");
}

TEST(Streams, AFullDiskIsAFailure) {
  const Outcome outcome = run_command({"list"}, ".", "", "eval \"$COMMAND\" >/dev/full");
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, StartsWith("headloom: standard output: "));
}

}  // namespace
}  // namespace headloom::cli

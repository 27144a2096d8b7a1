// Every smoke recipe trains to its end and is evaluated, by the command alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/cli/command.h"

namespace headloom::cli {
namespace {

namespace fs = std::filesystem;

const fs::path kFolder = fs::path(HEADLOOM_SOURCE_DIR) / "recipes/smoke";

std::vector<std::string> smoke_recipes() {
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(kFolder)) {
    if (entry.path().extension() == ".toml") names.push_back(entry.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

class SmokeRecipes : public testing::TestWithParam<std::string> {};

TEST_P(SmokeRecipes, TrainToTheirEndAndAreEvaluated) {
  const TemporaryFolder folder;
  const std::string recipe = (kFolder / (GetParam() + ".toml")).string(), run = folder / "run";
  const Outcome training =
      run_command({"train", recipe, "--folder", run, "--quiet", "--set", "train.threads=1"});
  ASSERT_EQ(training.exit_code, 0) << training.err;
  const auto summary = nlohmann::json::parse(read_text(run + "/summary.json"));
  EXPECT_EQ(summary["step"], 20);
  EXPECT_TRUE(summary["completed"].get<bool>());
  const Outcome evaluation = run_command({"eval", run, "--json"});
  EXPECT_EQ(evaluation.exit_code, 0) << evaluation.err;
  EXPECT_FALSE(nlohmann::json::parse(evaluation.out).empty());
}

INSTANTIATE_TEST_SUITE_P(Files, SmokeRecipes, testing::ValuesIn(smoke_recipes()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace headloom::cli

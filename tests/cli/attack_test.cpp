// `headloom eval --attack`, on a model that has hardly trained.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/cli/command.h"

namespace headloom::cli {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class AttackCommand : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TemporaryFolder;
    trained_ = new Outcome(train("classification", "run"));
  }
  static void TearDownTestSuite() {
    delete trained_;
    delete folder_;
  }
  void SetUp() override { ASSERT_EQ(trained_->exit_code, 0) << trained_->err; }

  static Outcome train(const std::string& recipe, const std::string& run) {
    const std::string path = std::string(HEADLOOM_SOURCE_DIR "/recipes/smoke/") + recipe + ".toml";
    return run_command({"train", path, "--folder", run, "--quiet", "--set", "train.threads=1",
                        "--set", "model.dropout=0.2"},
                       folder_->path());
  }
  static Outcome eval(std::vector<std::string> arguments, const std::string& run = "run") {
    arguments.insert(arguments.begin(), {"eval", run});
    return run_command(arguments, folder_->path());
  }

  inline static TemporaryFolder* folder_ = nullptr;
  inline static Outcome* trained_ = nullptr;
};

TEST_F(AttackCommand, EvalSaysHowWellAClassifierKnowsWhatItKnows) {
  const Outcome outcome = eval({"--json"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const auto found = nlohmann::json::parse(outcome.out);
  EXPECT_FALSE(found.contains("attack"));
  for (const char* name :
       {"loss", "accuracy", "ece", "pavpu", "pavpu_welch", "predictive_entropy"}) {
    EXPECT_TRUE(found["metrics"].contains(name)) << name;
  }
  EXPECT_EQ(eval({"--json"}).out, outcome.out) << "dropout draws from the seed";
}

TEST_F(AttackCommand, ReportsRatesInJsonAndText) {
  for (const char* name : {"character", "embedding", "hotflip"}) {
    const std::vector<std::string> command{"--attack", name,       "--examples", "4",     "--seed",
                                           "5",        "--budget", "60",         "--json"};
    const Outcome outcome = eval(command);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(eval(command).out, outcome.out) << "the same for the same seed";
    const auto found = nlohmann::json::parse(outcome.out);
    EXPECT_TRUE(found["metrics"].contains("accuracy"));
    const auto& attack = found["attack"];
    EXPECT_EQ(attack["name"], name);
    EXPECT_EQ(attack["examples"], 4);
    EXPECT_EQ(attack["seed"], 5);
    EXPECT_EQ(attack["budget"], 60);
    const int skipped = attack["skipped"], succeeded = attack["succeeded"],
              failed = attack["failed"];
    EXPECT_EQ(skipped + succeeded + failed, 4);
    EXPECT_EQ(attack["clean_accuracy"], 25.0 * (succeeded + failed));
    EXPECT_EQ(attack["accuracy_under_attack"], 25.0 * failed);
    EXPECT_LE(attack["mean_queries"], 60.0);
    EXPECT_TRUE(attack.contains("attack_failure_rate"));
    EXPECT_TRUE(attack.contains("words_changed"));
  }
  const Outcome text = eval({"--attack", "character", "--examples", "4"});
  EXPECT_EQ(text.exit_code, 0) << text.err;
  EXPECT_THAT(text.out, AllOf(HasSubstr("matthews"), HasSubstr("attack_failure_rate"),
                              HasSubstr("Attack character on 4 examples, seed 1")));
}

TEST_F(AttackCommand, SaysWhatItsRatesAre) {
  EXPECT_THAT(run_command({"eval", "--help"}).out,
              AllOf(HasSubstr("attack_failure_rate"), HasSubstr("accuracy_under_attack"),
                    HasSubstr("character"), HasSubstr("--budget")));
}

TEST_F(AttackCommand, RefusesWhatCannotBe) {
  EXPECT_EQ(eval({"--attack", "textfooler"}).exit_code, 2);
  EXPECT_EQ(eval({"--examples", "4"}).exit_code, 2) << "without an attack";
  const Outcome cosine = eval({"--attack", "character", "--least-cosine", "0.5"});
  EXPECT_EQ(cosine.exit_code, 2);
  EXPECT_THAT(cosine.err, HasSubstr("no least cosine for character edits"));
  const Outcome listops = train("listops", "listops");
  ASSERT_EQ(listops.exit_code, 0) << listops.err;
  const Outcome outcome = eval({"--attack", "character"}, "listops");
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("a run of a task that classifies texts; found task listops"));
}

}  // namespace
}  // namespace headloom::cli

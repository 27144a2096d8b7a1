#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/cli/command.h"

namespace headloom::cli {
namespace {

using testing::HasSubstr;
using testing::Not;

class Report : public testing::Test {
 protected:
  // The smoke run of talking heads, stopped at `steps`.
  std::string train(const std::string& steps) {
    const std::string run = folder_ / "run";
    const Outcome outcome =
        run_command({"train", HEADLOOM_SOURCE_DIR "/recipes/smoke/talking_heads.toml", "--folder",
                     run, "--quiet", "--set", "train.threads=1", "--set", "train.steps=" + steps});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return run;
  }

  const TemporaryFolder folder_;
};

TEST_F(Report, ShowsCurvesCostAndHeadMixes) {
  const std::string run = train("10");
  const std::string page = read_text(run + "/report.html");
  EXPECT_THAT(page, HasSubstr("Training loss"));
  EXPECT_THAT(page, HasSubstr("mixer.logits_proj"));
  EXPECT_THAT(page, HasSubstr("mixer.weights_proj"));
  std::filesystem::remove(run + "/report.html");
  const Outcome outcome = run_command({"report", run});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr(run + "/report.html"));
  EXPECT_EQ(read_text(run + "/report.html"), page);
}

TEST_F(Report, ShowsARunThatHasNotEnded) {
  const std::string run = train("10");
  std::filesystem::remove(run + "/summary.json");
  const std::string page = folder_ / "page.html";
  const Outcome outcome = run_command({"report", run, "--output", page});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(read_text(page), HasSubstr("step 10 is its last so far"));
  EXPECT_THAT(read_text(page), Not(HasSubstr("Cost")));
}

TEST_F(Report, SaysThatNoCheckpointCanBeRead) {
  const std::string run = train("10");
  int torn = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(run + "/checkpoints")) {
    if (entry.path().extension() != ".safetensors") continue;
    std::filesystem::resize_file(entry.path(), 5);
    ++torn;
  }
  ASSERT_GT(torn, 0);
  const Outcome outcome = run_command({"report", run});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  const std::string page = read_text(run + "/report.html");
  EXPECT_THAT(page, HasSubstr("Training loss"));
  EXPECT_THAT(page, HasSubstr("The matrices that mix heads are left out"));
  EXPECT_THAT(page, Not(HasSubstr("mixer.logits_proj")));
}

TEST_F(Report, WritesTensorBoardsFile) {
  const std::string run = train("10"), events = folder_ / "board/run";
  const Outcome outcome = run_command({"report", run, "--tensorboard", events});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  const std::string path = events + "/events.out.tfevents.0.headloom";
  EXPECT_THAT(outcome.out, HasSubstr(path));
  const std::string bytes = read_text(path);
  for (const char* tag :
       {"train/loss", "train/lr", "train/tokens_per_second", "validation/nats_per_byte"}) {
    EXPECT_THAT(bytes, HasSubstr(tag));
  }
  run_command({"report", run, "--tensorboard", events});
  EXPECT_EQ(read_text(path), bytes) << "an export takes the place of the one before";
}

TEST_F(Report, RefusesAFolderOfSomethingElse) {
  const Outcome outcome = run_command({"report", folder_.path()});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("expected the folder of a run"));
}

}  // namespace
}  // namespace headloom::cli

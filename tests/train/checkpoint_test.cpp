#include "headloom/train/checkpoint.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <torch/torch.h>
#include <unistd.h>

#include <algorithm>
#include <iomanip>
#include <set>

#include "headloom/base/check.h"
#include "tests/train/temporary_folder.h"

namespace headloom::train {
namespace {

namespace fs = std::filesystem;
using headloom::testing::message_of;
using headloom::testing::read_bytes;
using headloom::testing::TemporaryFolder;
using headloom::testing::write_bytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

const char* const kFiles[] = {"manifest.json", "model.safetensors", "recipe.toml",
                              "state.safetensors"};

// All contents follow from the step, so that a mix of two checkpoints shows.
Checkpoint checkpoint_of(int64_t step) {
  std::ostringstream third;
  third << std::setprecision(17) << static_cast<double>(step) / 3.0;
  Checkpoint checkpoint;
  checkpoint.step = step;
  checkpoint.model = {{"layer.weight", torch::full({2, 3}, static_cast<double>(step))}};
  checkpoint.state = {{"layer.weight.step", torch::full({}, step, at::kFloat)},
                      {"generator", torch::full({16}, step % 251, at::kByte)}};
  checkpoint.values = {{"best", third.str()}, {"\xc3\xb6 \"quoted\"\n", std::to_string(step)}};
  checkpoint.recipe = "task = \"listops\"\n# step " + std::to_string(step) + "\n";
  return checkpoint;
}

void expect_equal(const NamedTensors& actual, const NamedTensors& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    EXPECT_EQ(actual[i].first, expected[i].first);
    EXPECT_EQ(actual[i].second.dtype(), expected[i].second.dtype());
    EXPECT_TRUE(torch::equal(actual[i].second, expected[i].second)) << actual[i].first;
  }
}

void expect_is(const Checkpoint& actual, int64_t step) {
  const Checkpoint expected = checkpoint_of(step);
  EXPECT_EQ(actual.step, expected.step);
  expect_equal(actual.model, expected.model);
  expect_equal(actual.state, expected.state);
  EXPECT_EQ(actual.values, expected.values);
  EXPECT_EQ(actual.recipe, expected.recipe);
}

std::set<std::string> names_in(const std::string& folder) {
  std::set<std::string> names;
  for (const auto& item : fs::directory_iterator(folder)) names.insert(item.path().filename());
  return names;
}

// The newest checkpoint, which must be that of `step`; returns the warnings.
std::vector<std::string> expect_newest(const std::string& folder, int64_t step) {
  std::vector<std::string> warnings;
  const auto newest = CheckpointFolder(folder).load_newest(warnings);
  EXPECT_TRUE(newest.has_value());
  if (newest) expect_is(*newest, step);
  return warnings;
}

class CheckpointTest : public ::testing::Test {
 protected:
  void save(int64_t step, int64_t keep = 2) { folder_.save(checkpoint_of(step), keep); }
  std::string run() const { return temporary_.file("run"); }
  std::string path(const std::string& name) const { return run() + "/" + name; }

  TemporaryFolder temporary_;
  CheckpointFolder folder_{temporary_.file("run")};
};

TEST_F(CheckpointTest, ReadsBackWhatWasSaved) {
  save(7);
  EXPECT_THAT(names_in(run()), ElementsAre("step_00000007"));
  EXPECT_THAT(names_in(path("step_00000007")), ::testing::ElementsAreArray(kFiles));
  expect_is(CheckpointFolder::load(path("step_00000007")), 7);
  EXPECT_THAT(expect_newest(run(), 7), IsEmpty());
}

TEST_F(CheckpointTest, NumbersAsTextReadBackExactly) {
  save(7);
  const auto values = CheckpointFolder::load(path("step_00000007")).values;
  EXPECT_EQ(std::stod(values.at("best")), 7.0 / 3.0);
}

TEST_F(CheckpointTest, NothingThereIsNothing) {
  std::vector<std::string> warnings;
  EXPECT_FALSE(folder_.load_newest(warnings).has_value());
  EXPECT_FALSE(folder_.has_best());
  fs::create_directories(path("other"));
  write_bytes(path("step_00000003.tmp"), "");
  EXPECT_FALSE(folder_.load_newest(warnings).has_value());
  EXPECT_THAT(warnings, IsEmpty());
  EXPECT_THAT(message_of<Error>([&] { folder_.load_best(); }),
              HasSubstr("best: expected the folder of a checkpoint; found none"));
}

TEST_F(CheckpointTest, KeepsTheNewestAndTheBest) {
  folder_.save_best(checkpoint_of(2));
  for (int64_t step : {1, 2, 10, 9, 123456789}) save(step, 2);
  EXPECT_THAT(names_in(run()), ElementsAre("best", "step_00000010", "step_123456789"));
  EXPECT_THAT(expect_newest(run(), 123456789), IsEmpty());
  expect_is(folder_.load_best(), 2);
  save(123456790, 1);
  EXPECT_THAT(names_in(run()), ElementsAre("best", "step_123456790"));
}

TEST_F(CheckpointTest, LeavesLaterStepsAlone) {
  save(30);
  save(20, 1);
  EXPECT_THAT(names_in(run()), ElementsAre("step_00000020", "step_00000030"));
}

TEST_F(CheckpointTest, ReplacesAStepAndTheBest) {
  save(5);
  write_bytes(path("step_00000005/recipe.toml"), "other");
  save(5);
  EXPECT_THAT(expect_newest(run(), 5), IsEmpty());
  folder_.save_best(checkpoint_of(1));
  EXPECT_TRUE(folder_.has_best());
  folder_.save_best(checkpoint_of(2));
  expect_is(folder_.load_best(), 2);
  EXPECT_THAT(names_in(run()), ElementsAre("best", "step_00000005"));
}

TEST_F(CheckpointTest, ClearsUnfinishedWorkAndNothingElse) {
  save(1);
  fs::copy(path("step_00000001"), path("step_00000002.tmp"));
  fs::copy(path("step_00000001"), path("best.tmp"));
  write_bytes(path("notes.tmp"), "mine");
  write_bytes(path("step_2"), "mine");
  EXPECT_THAT(expect_newest(run(), 1), IsEmpty());
  save(3);
  EXPECT_THAT(names_in(run()),
              ElementsAre("notes.tmp", "step_00000001", "step_00000003", "step_2"));
}

// Between the two renames of a replacement the old checkpoint waits under ".old".
TEST_F(CheckpointTest, AReplacementCutShortLosesNothing) {
  save(4);
  folder_.save_best(checkpoint_of(4));
  fs::rename(path("step_00000004"), path("step_00000004.old"));
  fs::rename(path("best"), path("best.old"));
  EXPECT_THAT(expect_newest(run(), 4), IsEmpty());
  EXPECT_TRUE(folder_.has_best());
  expect_is(folder_.load_best(), 4);
  save(5);
  EXPECT_THAT(names_in(run()), ElementsAre("best", "step_00000004", "step_00000005"));
  expect_is(folder_.load_best(), 4);
  fs::copy(path("best"), path("best.old"));
  fs::copy(path("step_00000004"), path("step_00000004.old"));
  folder_.save_best(checkpoint_of(6));
  EXPECT_THAT(names_in(run()), ElementsAre("best", "step_00000004", "step_00000005"));
  expect_is(folder_.load_best(), 6);
}

TEST_F(CheckpointTest, SkipsTornAndForeignOnes) {
  save(1, 9);
  for (int64_t step : {2, 3, 4, 5}) save(step, 9);
  fs::resize_file(path("step_00000002/model.safetensors"), 40);
  fs::remove(path("step_00000003/state.safetensors"));
  std::string bytes = read_bytes(path("step_00000004/state.safetensors"));
  bytes.back() ^= 1;
  write_bytes(path("step_00000004/state.safetensors"), bytes);
  fs::remove_all(path("step_00000005"));
  fs::create_directory(path("step_00000005"));
  write_bytes(path("step_00000005/weights.bin"), "of another program");
  const std::vector<std::string> warnings = expect_newest(run(), 1);
  ASSERT_THAT(warnings, SizeIs(4));
  EXPECT_THAT(warnings[0], AllOf(StartsWith("skipped " + path("step_00000005/manifest.json")),
                                 HasSubstr("No such file")));
  EXPECT_THAT(warnings[1], AllOf(StartsWith("skipped " + path("step_00000004/state.safetensors")),
                                 HasSubstr("CRC-32")));
  EXPECT_THAT(warnings[2], AllOf(StartsWith("skipped " + path("step_00000003/state.safetensors")),
                                 HasSubstr("No such file")));
  EXPECT_THAT(warnings[3], AllOf(StartsWith("skipped " + path("step_00000002/model.safetensors")),
                                 HasSubstr("as the manifest says; found 40 bytes")));
}

TEST_F(CheckpointTest, OnlyUnreadableOnesIsAnError) {
  save(1);
  save(2);
  fs::resize_file(path("step_00000001/recipe.toml"), 3);
  fs::remove(path("step_00000002/manifest.json"));
  std::vector<std::string> warnings;
  const std::string message = message_of<Error>([&] { folder_.load_newest(warnings); });
  EXPECT_THAT(message, AllOf(HasSubstr("a checkpoint that can be read"),
                             HasSubstr("step_00000002/manifest.json"),
                             HasSubstr("step_00000001/recipe.toml")));
}

TEST_F(CheckpointTest, RefusesOtherManifests) {
  save(1);
  const std::string manifest = path("step_00000001/manifest.json");
  const std::string good = read_bytes(manifest);
  const auto message = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const size_t place = text.find(from);
    EXPECT_NE(place, text.npos) << good;
    write_bytes(manifest, text.replace(place, from.size(), to));
    return message_of<Error>([&] { CheckpointFolder::load(path("step_00000001")); });
  };
  EXPECT_THAT(message("headloom checkpoint", "other"), HasSubstr("found another kind of file"));
  EXPECT_THAT(message("\"version\": 1", "\"version\": 2"),
              HasSubstr("expected format version 1; found 2. Use the headloom that wrote it."));
  EXPECT_THAT(message("\"step\": 1", "\"step\": 2"), HasSubstr("CRC-32 agrees"));
  EXPECT_THAT(message("recipe.toml", "recipe.tomb"), HasSubstr("CRC-32 agrees"));
  EXPECT_THAT(message("crc32", "crc"), HasSubstr("something missing or of another type"));
  EXPECT_THAT(message("{", "["), HasSubstr("text that is not JSON"));
  EXPECT_THAT(message("\"step\": 1", "\"step\": " + std::string(5000, '[')),
              HasSubstr("deeply nested JSON"));
  EXPECT_THAT(message("\"step\": 1", std::string(1 << 17, ' ')),
              HasSubstr("expected at most 65536 bytes"));
}

// Damage to any byte of any file is noticed, or, in white space of the manifest, harmless.
TEST_F(CheckpointTest, NoticesDamageAtEveryByte) {
  save(1);
  const std::string place = path("step_00000001");
  for (const char* name : kFiles) {
    const std::string file = place + "/" + name;
    const std::string good = read_bytes(file);
    for (size_t i = 0; i < good.size(); ++i) {
      std::string bytes = good;
      bytes[i] = static_cast<char>(bytes[i] ^ 1);
      write_bytes(file, bytes);
      try {
        expect_is(CheckpointFolder::load(place), 1);
        EXPECT_STREQ(name, "manifest.json") << "byte " << i;
      } catch (const Error& error) {
        EXPECT_THAT(error.what(), StartsWith(file));
      }
    }
    write_bytes(file, good);
  }
}

// For its lifetime no file grows beyond `bytes`: what a write meets on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    handler_ = ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit = {bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    ::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  sighandler_t handler_;
};

TEST_F(CheckpointTest, AFailedSaveLosesNothing) {
  save(1);
  save(2);
  folder_.save_best(checkpoint_of(2));
  const auto before = names_in(run());
  uint64_t largest = 0;
  for (const char* name : kFiles) {
    largest = std::max<uint64_t>(largest, fs::file_size(path("best/") + name));
  }
  for (uint64_t limit : {uint64_t{0}, uint64_t{20}, largest / 2, largest - 1}) {
    const auto attempt = [&](const auto& action) {
      const FileSizeLimit full(limit);
      return message_of<Error>(action);
    };
    for (const std::string& message : {attempt([&] { save(3); }), attempt([&] { save(2); }),
                                       attempt([&] { folder_.save_best(checkpoint_of(3)); })}) {
      EXPECT_THAT(message,
                  AllOf(StartsWith(run()), HasSubstr(".tmp/"), HasSubstr("File too large")))
          << limit;
    }
    EXPECT_EQ(names_in(run()), before) << limit;
    EXPECT_THAT(expect_newest(run(), 2), IsEmpty());
    expect_is(folder_.load_best(), 2);
  }
  save(3);
  EXPECT_THAT(expect_newest(run(), 3), IsEmpty());
}

// Saves until it is killed, at whatever moment that is.
[[noreturn]] void save_for_ever(const std::string& folder, int64_t step) {
  CheckpointFolder checkpoints(folder);
  for (;; ++step) {
    checkpoints.save(checkpoint_of(step), 2);
    checkpoints.save(checkpoint_of(step), 2);
    checkpoints.save_best(checkpoint_of(step));
  }
}

TEST_F(CheckpointTest, AKilledSaveLosesNothing) {
  save(1);
  folder_.save_best(checkpoint_of(1));
  int64_t newest_before = 1, best_before = 1;
  for (int round = 0; round < 12; ++round) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) save_for_ever(run(), newest_before + 1);
    ::usleep(7000 + 1300 * round);
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "the child ended by itself";
    std::vector<std::string> warnings;
    const auto newest = folder_.load_newest(warnings);
    ASSERT_TRUE(newest.has_value());
    EXPECT_THAT(warnings, IsEmpty());
    EXPECT_GE(newest->step, newest_before);
    expect_is(*newest, newest->step);
    const Checkpoint best = folder_.load_best();
    expect_is(best, best.step);
    EXPECT_GE(best.step, best_before);
    newest_before = newest->step;
    best_before = best.step;
  }
}

TEST_F(CheckpointTest, RefusesImpossibleArguments) {
  EXPECT_THAT(message_of<Error>([&] { save(1, 0); }), HasSubstr("to keep at least 1 checkpoint"));
  EXPECT_THAT(message_of<Error>([&] { save(-1); }), HasSubstr("found step -1"));
  write_bytes(run(), "a file");
  EXPECT_THAT(message_of<Error>([&] { save(1); }), HasSubstr("to create the folder"));
}

}  // namespace
}  // namespace headloom::train

// The promise that matters most, kept by the built command: a run that is killed at any moment goes
// on and ends bit for bit where an undisturbed run ends.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Long enough for the slowest machine; a test that gets here fails, so nothing is measured by it.
constexpr auto kPatience = std::chrono::seconds(120);

std::string read_all(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

class KillResume : public ::testing::Test {
 protected:
  void SetUp() override {
    const bool in_memory = fs::is_directory("/dev/shm");
    const fs::path parent = in_memory ? fs::path("/dev/shm") : fs::temp_directory_path();
    std::string pattern = (parent / "headloom-kill-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    scratch_ = pattern;
    std::ofstream text(scratch_ / "corpus.txt");
    for (int i = 0; i < 900; ++i) text << "line " << i * i << " of " << i << " words\n";
    std::ofstream(scratch_ / "recipe.toml") << R"([task]
name = "language_model"
path = "corpus.txt"
context = 32
validation_limit = 2000
[model]
dim = 16
layers = 1
heads = 2
ffn = 32
max_length = 32
dropout = 0.1
mixing_dropout = 0.1
[schedule]
name = "cosine"
warmup = 5
[train]
steps = 400
batch_size = 4
accumulate = 2
clip = 1.0
ema = 0.9
log_every = 7
validate_every = 30
checkpoint_every = 20
keep = 1
threads = 1
)";
  }
  void TearDown() override {
    std::error_code ignored;
    fs::remove_all(scratch_, ignored);
  }

  std::string folder(const std::string& name) const { return (scratch_ / name).string(); }

  pid_t start(const std::string& run) const {
    const pid_t child = ::fork();
    if (child != 0) return child;
    const int log = ::open(folder(run + ".log").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0666);
    ::dup2(log, STDOUT_FILENO);
    ::dup2(log, STDERR_FILENO);
    const std::string command = HEADLOOM_BINARY_DIR "/headloom";
    const std::string recipe = folder("recipe.toml"), out = folder(run);
    ::execl(command.c_str(), command.c_str(), "train", recipe.c_str(), "--folder", out.c_str(),
            "--quiet", static_cast<char*>(nullptr));
    ::_exit(127);
  }
  static int wait_for(pid_t child) {
    int status = 0;
    ::waitpid(child, &status, 0);
    return status;
  }
  void finish(const std::string& run) const {
    const int status = wait_for(start(run));
    ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status << '\n'
                                                               << read_all(folder(run + ".log"));
  }

  // The last step that the run has reported.
  int64_t reported_step(const std::string& run) const {
    std::ifstream file(folder(run) + "/metrics.jsonl");
    int64_t step = -1;
    for (std::string line; std::getline(file, line);) {
      const json event = json::parse(line, nullptr, false);
      if (event.is_object() && event["event"] == "train") step = event["step"];
    }
    return step;
  }

  // Runs until `step` has been reported, and then for `more` at most; then sends the signal. False
  // when the run ended before.
  bool stop_after(const std::string& run, int64_t step, int signal,
                  std::chrono::milliseconds more = {}) const {
    const pid_t child = start(run);
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (reported_step(run) < step && std::chrono::steady_clock::now() < deadline &&
           ::waitpid(child, nullptr, WNOHANG) == 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    std::this_thread::sleep_for(more);
    if (::kill(child, signal) != 0) return false;
    const int status = wait_for(child);
    return signal == SIGKILL ? WIFSIGNALED(status)
                             : WIFEXITED(status) && WEXITSTATUS(status) == 130;
  }

  // The tensors of the newest and the best checkpoint, and the state's counters without its clocks.
  std::map<std::string, std::string> weights(const std::string& run) const {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(folder(run) + "/checkpoints")) {
      if (entry.path().extension() != ".safetensors") continue;
      const std::string name = fs::relative(entry.path(), folder(run)).string();
      files[name] = without_clocks(read_all(entry.path()));
    }
    return files;
  }

  // A safetensors file is the length of its header in 8 bytes, the header, the data.
  static std::string without_clocks(const std::string& file) {
    uint64_t size = 0;
    std::memcpy(&size, file.data(), sizeof size);
    json header = json::parse(file.substr(sizeof size, size));
    if (header.contains("__metadata__")) {
      json counters = json::parse(header["__metadata__"]["counters"].get<std::string>());
      counters.erase("train_seconds");
      counters.erase("interval_seconds");
      header["__metadata__"] = counters;
    }
    return header.dump() + file.substr(sizeof size + size);
  }

  // Training and validation lines without what the clock says.
  std::vector<std::string> curve(const std::string& run) const {
    std::ifstream file(folder(run) + "/metrics.jsonl");
    std::vector<std::string> lines;
    for (std::string line; std::getline(file, line);) {
      json event = json::parse(line);
      if (event["event"] != "train" && event["event"] != "validation") continue;
      event.erase("seconds");
      event.erase("tokens_per_second");
      lines.push_back(event.dump());
    }
    return lines;
  }

  void expect_same(const std::string& run, const std::string& expected) const {
    const auto found = weights(run), whole = weights(expected);
    ASSERT_GE(whole.size(), 4) << "model and state, newest and best";
    ASSERT_EQ(found.size(), whole.size());
    for (const auto& [name, bytes] : whole) {
      ASSERT_TRUE(found.count(name)) << name;
      EXPECT_TRUE(found.at(name) == bytes) << name << " differs";
    }
    EXPECT_EQ(curve(run), curve(expected));
    EXPECT_GT(curve(expected).size(), 60);
  }

  fs::path scratch_;
};

TEST_F(KillResume, IsExactAfterKillsAtAnyMomentSlow) {
  finish("whole");
  int kills = 0;
  for (int64_t step : {21, 70, 133, 210, 301}) {
    kills += stop_after("pieces", step, SIGKILL, std::chrono::milliseconds(3 * step % 17));
  }
  ASSERT_GE(kills, 3) << "the run ended before it could be killed";
  finish("pieces");
  expect_same("pieces", "whole");
}

TEST_F(KillResume, IsExactAfterAKillBeforeTheFirstCheckpointSlow) {
  finish("whole");
  ASSERT_TRUE(stop_after("pieces", 7, SIGKILL));
  finish("pieces");
  expect_same("pieces", "whole");
}

TEST_F(KillResume, SigtermSavesAndExits130Slow) {
  finish("whole");
  ASSERT_TRUE(stop_after("pieces", 35, SIGTERM)) << read_all(folder("pieces.log"));
  const int64_t step = json::parse(read_all(folder("pieces") + "/summary.json"))["step"];
  EXPECT_GE(step, 35);
  EXPECT_LT(step, 400);
  finish("pieces");
  expect_same("pieces", "whole");
}

}  // namespace

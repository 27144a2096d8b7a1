#include "headloom/cli/process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "headloom/base/check.h"
#include "headloom/cli/machine.h"
#include "tests/cli/command.h"

namespace headloom::cli {
namespace {

TEST(RunChild, TellsHowTheChildEnded) {
  EXPECT_EQ(run_child({"/bin/sh", "-c", "exit 0"}).exit_code, 0);
  EXPECT_EQ(run_child({"/bin/sh", "-c", "exit 3"}).exit_code, 3);
  const ChildEnd killed = run_child({"/bin/sh", "-c", "kill -9 $$"});
  EXPECT_EQ(killed.signal, 9);
  EXPECT_EQ(killed.exit_code, 137);
}

TEST(RunChild, HandsWordsOverUnchanged) {
  EXPECT_EQ(run_child({"/bin/sh", "-c", "test \"$1\" = 'a b\"$c'", "x", "a b\"$c"}).exit_code, 0);
}

TEST(RunChild, RefusesAProgramThatDoesNotStart) {
  EXPECT_THROW(run_child({"/no/such/program"}), RunError);
}

TEST(SignalRelay, HandsOneInterruptToTheChild) {
  const TemporaryFolder folder;
  const std::string ready = folder / "ready";
  SignalRelay relay;
  EXPECT_FALSE(SignalRelay::interrupted());
  std::thread sender([&] {
    while (!std::filesystem::exists(ready))
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    ::kill(::getpid(), SIGINT);
    ::kill(::getpid(), SIGINT);  // what a tool does that signals a process and its group
  });
  // Counts interrupts, and ends with their number.
  const std::string script = "n=0; trap 'n=$((n+1))' INT; touch " + shell_line({ready}) +
                             "; for i in 1 2 3 4 5 6 7 8; do sleep 0.05; done; exit $n";
  const ChildEnd end = run_child({"/bin/sh", "-c", script});
  sender.join();
  EXPECT_EQ(end.exit_code, 1);
  EXPECT_TRUE(SignalRelay::interrupted());
}

TEST(OwnExecutable, IsThisProgram) {
  EXPECT_NE(own_executable().find("cli_tests"), std::string::npos);
}

TEST(ShellLine, QuotesWhatAShellWouldChange) {
  EXPECT_EQ(shell_line({"headloom", "--set", "train.steps=5"}), "headloom --set train.steps=5");
  EXPECT_EQ(shell_line({"a b", "", "it's", "$x"}), "'a b' '' 'it'\\''s' '$x'");
}

TEST(Machine, IsDescribed) {
  const Machine machine = describe_machine(3);
  EXPECT_EQ(machine.threads, 3);
  EXPECT_GE(machine.cores, 1);
  EXPECT_GT(machine.memory_bytes, 0);
  EXPECT_FALSE(machine.processor.empty());
  EXPECT_GE(describe_machine(0).threads, 1);
  EXPECT_NE(to_string(machine).find("3 threads"), std::string::npos);
}

}  // namespace
}  // namespace headloom::cli

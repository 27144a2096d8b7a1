#pragma once

#include <csignal>
#include <string>
#include <vector>

namespace headloom::cli {

// How a child process ended.
struct ChildEnd {
  int exit_code = 0;
  int signal = 0;  // that ended it, or 0
};

// While it lives, SIGINT and SIGTERM reach the child that is running, once for each time that they
// come, and this process goes on so that it can finish its work. A signal that is ignored (nohup)
// stays ignored. One at a time.
class SignalRelay {
 public:
  SignalRelay();
  ~SignalRelay();
  SignalRelay(const SignalRelay&) = delete;
  SignalRelay& operator=(const SignalRelay&) = delete;

  static bool interrupted();

 private:
  struct sigaction old_interrupt_, old_terminate_;
};

// Runs a program with these words and waits for its end. Its standard input is empty, its standard
// output goes nowhere and its standard error is this process's. It gets SIGTERM when this process
// dies. RunError when it cannot be started.
ChildEnd run_child(const std::vector<std::string>& words);

// The file that this process runs.
std::string own_executable();

}  // namespace headloom::cli

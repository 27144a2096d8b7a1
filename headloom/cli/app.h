#pragma once

// The command `headloom`.
namespace headloom::cli {

// What the process ends with.
enum ExitCode {
  kDone = 0,
  kFailed = 1,         // good input, but the work failed: a loss that is not finite, a full disk
  kUsage = 2,          // wrong usage or bad input
  kInterrupted = 130,  // SIGINT or SIGTERM; the state is saved
};

// Parses the command line, runs the command that it names and returns the exit code. Messages go
// to standard error as "headloom: <message>". Standard output may be closed at any time.
int run(int argc, char** argv);

}  // namespace headloom::cli

#pragma once

#include <csignal>

namespace headloom::train {

// While it lives, the first SIGINT or SIGTERM is only remembered and the next one ends the process
// as if this class were not there. A signal that the process ignores (nohup) stays ignored. SIGXFSZ
// is ignored, so that a file-size limit is a failed write and not the end of a run. One at a time.
class SignalGuard {
 public:
  SignalGuard();
  ~SignalGuard();
  SignalGuard(const SignalGuard&) = delete;
  SignalGuard& operator=(const SignalGuard&) = delete;

  // The signal that came since construction, or 0.
  static int received();

 private:
  struct sigaction old_interrupt_, old_terminate_, old_file_size_;
};

}  // namespace headloom::train

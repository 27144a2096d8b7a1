#include "headloom/cli/process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>

#include "headloom/base/check.h"

namespace headloom::cli {
namespace {

constexpr int kCannotStart = 127;

volatile std::sig_atomic_t relay_interrupted = 0;
volatile pid_t relay_child = 0;
volatile double relay_last = 0.0;

double now() {
  timespec time;
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// A tool that signals both a process and its group sends one request twice; a child that gets two
// would give up without saving.
void relay(int signal) {
  const int saved_error = errno;
  const double time = now();
  const bool repeated = relay_interrupted && time - relay_last < 0.5;
  relay_interrupted = 1;
  if (!repeated) {
    relay_last = time;
    if (relay_child > 0) ::kill(relay_child, signal);
  }
  errno = saved_error;
}

void install(int signal, struct sigaction& old) {
  struct sigaction action = {};
  action.sa_handler = relay;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(signal, nullptr, &old);
  if (old.sa_handler != SIG_IGN) sigaction(signal, &action, nullptr);
}

// In the child, between fork and exec: system calls only.
[[noreturn]] void become(char* const* words, pid_t parent, const sigset_t& mask) {
  // Its own group, so that a terminal's interrupt does not reach it besides the relayed one.
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(kCannotStart);
  const int null = ::open("/dev/null", O_RDWR);
  ::dup2(null, STDIN_FILENO);
  ::dup2(null, STDOUT_FILENO);
  if (null > STDERR_FILENO) ::close(null);
  struct sigaction action = {};
  action.sa_handler = SIG_DFL;
  for (const int signal : {SIGINT, SIGTERM}) {
    struct sigaction current;
    ::sigaction(signal, nullptr, &current);
    if (current.sa_handler != SIG_IGN) ::sigaction(signal, &action, nullptr);
  }
  ::pthread_sigmask(SIG_SETMASK, &mask, nullptr);
  ::execv(words[0], words);
  ::_exit(kCannotStart);
}

}  // namespace

SignalRelay::SignalRelay() {
  relay_interrupted = 0;
  install(SIGINT, old_interrupt_);
  install(SIGTERM, old_terminate_);
}

SignalRelay::~SignalRelay() {
  sigaction(SIGINT, &old_interrupt_, nullptr);
  sigaction(SIGTERM, &old_terminate_, nullptr);
}

bool SignalRelay::interrupted() {
  return relay_interrupted != 0;
}

ChildEnd run_child(const std::vector<std::string>& words) {
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  // No signal between the fork and the moment when the relay knows its child.
  sigset_t held, mask;
  sigemptyset(&held);
  sigaddset(&held, SIGINT);
  sigaddset(&held, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &held, &mask);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child == 0) become(arguments.data(), parent, mask);
  const int error = errno;
  relay_child = child;
  ::pthread_sigmask(SIG_SETMASK, &mask, nullptr);
  if (child < 0) throw RunError(cat(words[0], ": expected to start; found ", std::strerror(error)));
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  relay_child = 0;
  if (WIFSIGNALED(status)) return {128 + WTERMSIG(status), WTERMSIG(status)};
  if (WEXITSTATUS(status) == kCannotStart) {
    throw RunError(cat(words[0], ": expected a program that starts; found one that does not."));
  }
  return {WEXITSTATUS(status), 0};
}

std::string own_executable() {
  return std::filesystem::read_symlink("/proc/self/exe").string();
}

}  // namespace headloom::cli

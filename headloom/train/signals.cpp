#include "headloom/train/signals.h"

namespace headloom::train {
namespace {

volatile std::sig_atomic_t received_signal = 0;

void remember(int signal) {
  received_signal = signal;
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

void install(int signal, void (*handler)(int), struct sigaction& old) {
  struct sigaction action = {};
  action.sa_handler = handler;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(signal, nullptr, &old);
  if (old.sa_handler != SIG_IGN) sigaction(signal, &action, nullptr);
}

}  // namespace

SignalGuard::SignalGuard() {
  received_signal = 0;
  install(SIGINT, remember, old_interrupt_);
  install(SIGTERM, remember, old_terminate_);
  install(SIGXFSZ, SIG_IGN, old_file_size_);
}

SignalGuard::~SignalGuard() {
  sigaction(SIGINT, &old_interrupt_, nullptr);
  sigaction(SIGTERM, &old_terminate_, nullptr);
  sigaction(SIGXFSZ, &old_file_size_, nullptr);
}

int SignalGuard::received() {
  return received_signal;
}

}  // namespace headloom::train

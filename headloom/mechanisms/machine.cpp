// What tools ask of the library besides its mechanisms: what it was built with, and the arithmetic
// peak that times are compared with.
#include <torch/library.h>
#include <torch/version.h>

#include <thread>
#include <vector>

#include "headloom/base/check.h"
#include "headloom/kernels/fma_peak.h"
#include "headloom/kernels/isa.h"

namespace headloom {
namespace {

std::string build_info() {
#if defined(HEADLOOM_WITH_CUDA)
  const char* cuda = "with CUDA";
#else
  const char* cuda = "without CUDA";
#endif
  return cat("headloom 0.1.0, torch ", TORCH_VERSION, ", ", cuda, ", kernels for ",
             kernels::name(kernels::active_isa()));
}

// Sum over `threads` threads that run at the same time, in 10^9 operations a second.
double fma_peak_gflops(int64_t threads, double seconds) {
  HEADLOOM_CHECK(threads >= 1 && seconds > 0.0, "fma_peak_gflops",
                 "at least one thread and a time above 0",
                 cat(threads, " threads, ", seconds, " s"));
  std::vector<double> rates(threads);
  std::vector<std::thread> workers;
  for (double& rate : rates) {
    workers.emplace_back(
        [&rate, seconds] { rate = kernels::fma_peak_gflops(kernels::active_isa(), seconds); });
  }
  double sum = 0.0;
  for (int64_t i = 0; i < threads; ++i) {
    workers[i].join();
    sum += rates[i];
  }
  return sum;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(headloom, m) {
  m.def("build_info() -> str", build_info);
  m.def("fma_peak_gflops(int threads, float seconds) -> float", fma_peak_gflops);
}

}  // namespace headloom

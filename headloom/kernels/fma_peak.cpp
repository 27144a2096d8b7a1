#include "headloom/kernels/fma_peak.h"

#include <time.h>

#include <algorithm>
#include <vector>

#include "headloom/base/check.h"
#include "headloom/kernels/isa_table.h"

HEADLOOM_ISA_TABLE(FmaPeakTable, fma_peak_table)

namespace headloom::kernels {

namespace {

double thread_seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

}  // namespace

double fma_peak_gflops(Isa isa, double seconds) {
  HEADLOOM_CHECK(seconds > 0, "fma_peak_gflops", "a positive number of seconds", cat(seconds));
  const FmaPeakTable& table = fma_peak_table(isa);
  constexpr int64_t kRounds = 50000;  // about 0.1 ms: short beside a time slice
  volatile float sink = 0;
  sink = table.run(kRounds);
  std::vector<double> rates;
  const double start = thread_seconds();
  for (double now = start; now - start < seconds || rates.size() < 5;) {
    sink = table.run(kRounds);
    const double then = now;
    now = thread_seconds();
    rates.push_back(1e-9 * static_cast<double>(kRounds * table.flops_per_round) / (now - then));
  }
  static_cast<void>(sink);
  const auto middle = rates.begin() + static_cast<std::ptrdiff_t>(rates.size() / 2);
  std::nth_element(rates.begin(), middle, rates.end());
  return *middle;
}

}  // namespace headloom::kernels

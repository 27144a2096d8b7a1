#pragma once

#include <cstdint>

#include "headloom/kernels/isa.h"

namespace headloom::kernels {

struct FmaPeakTable {
  // Runs `rounds` rounds of independent float32 multiply-adds in registers; returns a value that
  // depends on all of them.
  float (*run)(int64_t rounds);
  int64_t flops_per_round;
};
const FmaPeakTable& fma_peak_table(Isa isa);

// What one core can do in float32 with this instruction set: GFLOP/s, a multiply-add counted as
// two. The median of several stretches that together take about `seconds` of the calling thread's
// processor time (default 0.1); time that other threads take does not count. Measure it in the
// process and at the time of what is compared with it: the clock moves.
double fma_peak_gflops(Isa isa, double seconds = 0.1);

}  // namespace headloom::kernels

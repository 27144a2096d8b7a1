#pragma once

#include <cstdint>

#include "headloom/base/numeric.h"
#include "headloom/kernels/isa.h"

// Dropout of whole arrays, for double, float, BFloat16 and Half. Masks inside other kernels are
// philox_lanes.h's.
namespace headloom::kernels {

// y[i] = kept x[i], or 0 where base/rng.h drops element i of `seed`; i in [begin, end), begin a
// multiple of 4. y may be x.
template <class T>
struct DropoutArgs {
  const T* x;
  T* y;
  int64_t begin, end;
  uint64_t seed;
  uint32_t threshold;  // drop_threshold(p)
  double kept;         // 1 / (1 - p)
};

struct DropoutTable {
  void (*f64)(const DropoutArgs<double>&);
  void (*f32)(const DropoutArgs<float>&);
  void (*bf16)(const DropoutArgs<BFloat16>&);
  void (*f16)(const DropoutArgs<Half>&);
};

// The kernels of one instruction set; refuses one that does not run here.
const DropoutTable& dropout_table(Isa isa);

}  // namespace headloom::kernels

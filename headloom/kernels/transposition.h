#pragma once

#include <cstdint>

#include "headloom/kernels/isa.h"

// Transposition of whole matrices. Squares inside other kernels are transpose.h's.
namespace headloom::kernels {

// to[columns, rows] = transpose of from[rows, columns]. Strides count elements, rows of both are
// contiguous, and the arrays do not overlap.
struct TranspositionArgs {
  const float* from;
  int64_t from_stride, rows, columns;
  float* to;
  int64_t to_stride;
};

struct TranspositionTable {
  void (*f32)(const TranspositionArgs&);
};

// The kernels of one instruction set; refuses one that does not run here.
const TranspositionTable& transposition_table(Isa isa);

}  // namespace headloom::kernels

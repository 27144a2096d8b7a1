#pragma once

#include <cstdint>

#include "headloom/base/numeric.h"

namespace headloom::kernels {

// Which points of one side take part. In batch entry b: the first count[b] entries of
// index[b * points ...], ascending. The others have no weight: they get zeros and give nothing.
struct Selection {
  int64_t points;
  const int64_t* index;  // [B, points]
  const int64_t* count;  // [B]
};

}  // namespace headloom::kernels

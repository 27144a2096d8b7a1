#pragma once

#include <ATen/core/Tensor.h>

namespace headloom {

// From this size on the C library's allocator maps new memory for each tensor and gives it back
// with it, whatever was freed before (glibc: 32 MiB, unless it is told otherwise).
inline constexpr int64_t kFreshBytes = int64_t{32} << 20;

// at::empty for what an operator returns. On the processor, results of more than kFreshBytes ask
// for huge pages: a fault every 4 KiB of new memory takes several times what a fast kernel needs to
// fill it. Where the system has no huge pages it is plain at::empty.
at::Tensor empty_result(at::IntArrayRef sizes, const at::TensorOptions& options);

}  // namespace headloom

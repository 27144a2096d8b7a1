#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace headloom {

// A fresh seed from torch's default CPU generator: 0-dim int64, so that torch.manual_seed governs
// dropout and an operator that takes the seed is a pure function.
at::Tensor new_seed();

// The multiplier of each element under dropout with probability p: 0 where dropped, 1 / (1 - p)
// where kept; the decision for an element depends on the seed and its row-major index alone
// (base/rng.h). Returns the part [begin, end) along `dim` of the mask of a tensor of shape
// `sizes`, as a tensor of `options`.
at::Tensor dropout_mask(at::IntArrayRef sizes, double p, const at::Tensor& seed,
                        const at::TensorOptions& options, int64_t dim, int64_t begin, int64_t end);

// The whole mask.
at::Tensor dropout_mask(at::IntArrayRef sizes, double p, const at::Tensor& seed,
                        const at::TensorOptions& options);

}  // namespace headloom

#pragma once

#include <ATen/core/Tensor.h>

namespace headloom {

// One call without packing. Undefined tensors mean "none"; k undefined: the keys are q.
struct SymmetricReferenceArgs {
  at::Tensor pairwise;          // [H, D, D]
  at::Tensor k;                 // [B, Hq, Tk, D]
  at::Tensor bias;              // broadcasts to [B, H, T, Tk]
  at::Tensor key_padding_mask;  // [B, Tk]
  bool causal = false;
  double scale = 1.0;
  double dropout_p = 0.0;
  at::Tensor seed;
};

// The queries that keys meet: q A_h for each head, [B, Hq, T, D] -> [B, H, T, D].
at::Tensor fold_queries(const at::Tensor& q, const at::Tensor& pairwise, int64_t heads);

// The oracle, in plain differentiable torch operations on any device and dtype: [B, H, T, Dv].
at::Tensor symmetric_reference(const at::Tensor& q, const at::Tensor& v,
                               const SymmetricReferenceArgs& args);

}  // namespace headloom

#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace headloom {

// The part of a call that the reference looks at: queries row_begin .. row_begin + rows of the Tq
// queries of the call. Undefined tensors mean "none".
struct DotProductRows {
  at::Tensor bias;              // broadcasts to [B, H, rows, Tk]
  at::Tensor key_padding_mask;  // [B, Tk]
  bool causal = false;
  double scale = 1.0;
  double dropout_p = 0.0;
  at::Tensor seed;
  int64_t queries = 0;    // Tq of the whole call
  int64_t row_begin = 0;  // of the first row of q
};

// The oracle, in plain differentiable torch operations on any device and dtype: O [B, H, rows, Dv]
// and the log-sum-exp of the logits [B, H, rows], -inf where a query has nothing to attend.
std::tuple<at::Tensor, at::Tensor> dot_product_reference(const at::Tensor& q, const at::Tensor& k,
                                                         const at::Tensor& v,
                                                         const DotProductRows& rows);

}  // namespace headloom

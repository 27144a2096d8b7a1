#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "headloom/base/options.h"

namespace headloom {

// B batch, H heads, Tq queries, Tk keys, D width of queries and keys, Dv width of values.
struct DotProductOptions {
  // Added to the scaled logits; broadcasts to [B, H, Tq, Tk]. Its gradient is computed.
  std::optional<at::Tensor> bias;
  // [B, Tk] bool, true where a key is padding.
  std::optional<at::Tensor> key_padding_mask;
  // Query i sees key j when j <= i + Tk - Tq: the last query sees every key.
  bool causal = false;
  // Default 1 / sqrt(D).
  std::optional<double> scale;
  // Dropout on the attention weights, 0 <= p < 1.
  double dropout_p = 0.0;
  // 0-dim int64; drawn from torch's generator when absent and dropout_p > 0.
  std::optional<at::Tensor> seed;
  // Packed sequences: B must be 1, and sequence s has queries cu_seqlens_q[s] ..
  // cu_seqlens_q[s+1]-1 and keys cu_seqlens_k[s] .. cu_seqlens_k[s+1]-1. Both or neither.
  std::optional<at::Tensor> cu_seqlens_q;
  std::optional<at::Tensor> cu_seqlens_k;
};

// Scaled dot-product attention (Vaswani et al., 2017, eq. 1), the baseline of every comparison:
//
//   O = dropout(softmax(scale Q K^T + bias)) V
//
// q [B, H, Tq, D], k [B, H, Tk, D], v [B, H, Tk, Dv] -> [B, H, Tq, Dv], any strides, float64,
// float32, bfloat16 or float16. A query with nothing to attend gets zeros and zero gradient. Memory
// beyond the inputs and the output is O(Tq + Tk) for each head. Differentiable twice; the second
// derivative runs through the reference.
at::Tensor dot_product_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const DotProductOptions& options = {});

}  // namespace headloom

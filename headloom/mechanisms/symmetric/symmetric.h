#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace headloom {

// B batch, Hq heads of queries, H heads (a multiple of Hq), T tokens, Tk keys of another sequence,
// D width of queries, Dv width of values.
struct SymmetricOptions {
  // [B, Hq, Tk, D]: projections of another sequence, or of the tokens so far; q by default. Values
  // are then [B, H, Tk, Dv].
  std::optional<at::Tensor> k;
  // Added to the scaled logits; broadcasts to [B, H, T, Tk]. Its gradient is computed.
  std::optional<at::Tensor> bias;
  // [B, Tk] bool, true where a key is padding.
  std::optional<at::Tensor> key_padding_mask;
  // Query i sees key j when j <= i + Tk - T: the last query sees every key.
  bool causal = false;
  // Packed sequences: B must be 1, sequence s has tokens cu_seqlens[s] .. cu_seqlens[s+1]-1;
  // neither bias nor k with it.
  std::optional<at::Tensor> cu_seqlens;
  // Default 1 / sqrt(D).
  std::optional<double> scale;
  // Dropout on the attention weights, 0 <= p < 1.
  double dropout_p = 0.0;
  // 0-dim int64; drawn from torch's generator when absent and dropout_p > 0.
  std::optional<at::Tensor> seed;
  // The symmetric part (A + A^T) / 2 stands in for the coefficients A, so that scores are
  // symmetric.
  bool symmetrize = false;
};

// Symmetric and pairwise dot-product attention (Courtois, Ostendorff, Hennig and Rehm, Findings of
// ACL 2024): one projection serves as queries and as keys, and each head has coefficients A_h [D,
// D] between them.
//
//   O_h = dropout(softmax(scale Q_g A_h Q_g^T + bias)) V_h        g = h / (H / Hq)
//
// q [B, Hq, T, D], v [B, H, T, Dv], pairwise [H, D, D] (row vector convention; none: A = I, the
// plain symmetric form) -> [B, H, T, Dv]. Any strides, float64, float32, bfloat16 or float16. A
// query with nothing to attend gets zeros and zero gradient. Memory beyond the inputs and the
// output is O(T) for each head. Differentiable twice; the second derivative runs through the
// reference.
at::Tensor symmetric_attention(const at::Tensor& q, const at::Tensor& v,
                               const std::optional<at::Tensor>& pairwise = std::nullopt,
                               const SymmetricOptions& options = {});

}  // namespace headloom

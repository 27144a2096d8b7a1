#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

namespace headloom {

// B batch, Tq queries, Tk keys; K heads of queries and keys, H of the softmax, V of the values; D
// width of queries and keys, E width of values.
struct TalkingHeadsOptions {
  // P_l [K, H], mixes the logits; or [g, K / g, H / g], in g groups of heads that do not meet.
  // Absent: not applied, and H = K.
  std::optional<at::Tensor> logits_proj;
  // P_w [H, V], mixes the weights; or [g, H / g, V / g]. Absent: not applied, and V = H.
  std::optional<at::Tensor> weights_proj;
  // Dynamic projections: added to logits_proj for one query (x2l) or for one key (m2l), and the
  // same for weights_proj. [B, Tq or Tk, ...] and then the shape of the projection.
  std::optional<at::Tensor> x2l, m2l, x2w, m2w;
  // Added to the mixed logits; broadcasts to [B, H, Tq, Tk]. Not with packed sequences.
  std::optional<at::Tensor> bias;
  // [H or 1, Tq + Tk - 1], added to the mixed logits of query i and key j from place i - j + Tk -
  // 1: a bias by distance in O(T) memory. In a packed batch i and j count within their sequence.
  std::optional<at::Tensor> relative_bias;
  // [B, Tk] bool, true where a key is padding. Like `causal` it hides mixed logits.
  std::optional<at::Tensor> key_padding_mask;
  // Query i sees key j when j <= i + Tk - Tq: the last query sees every key.
  bool causal = false;
  // Default 1 / sqrt(D).
  std::optional<double> scale;
  // 0 <= p < 1, and where: on the mixed weights ("after_mix"), on the weights ("before_mix"), or on
  // the mixed weights with one decision a key for all queries ("per_key", as the authors' code).
  double dropout_p = 0.0;
  std::string dropout_site = "after_mix";
  // 0-dim int64; drawn from torch's generator when absent and dropout_p > 0.
  std::optional<at::Tensor> seed;
  // Packed sequences: B must be 1, and sequence s has queries cu_seqlens_q[s] ..
  // cu_seqlens_q[s+1]-1 and keys cu_seqlens_k[s] .. cu_seqlens_k[s+1]-1. Both or neither.
  std::optional<at::Tensor> cu_seqlens_q;
  std::optional<at::Tensor> cu_seqlens_k;
};

// Talking-heads attention (Shazeer et al., 2020, arXiv 2003.02436):
//
//   J[k] = scale Q[k] K[k]^T           L[h] = sum_k P_l[k, h] J[k] + bias[h]
//   W[h] = softmax(L[h])               U[v] = sum_h W[h] P_w[h, v]           O[v] = U[v] V[v]
//
// q [B, K, Tq, D], k [B, K, Tk, D], v [B, V, Tk, E] -> [B, V, Tq, E], any strides, float64,
// float32, bfloat16 or float16. A query with nothing to attend gets zeros and zero gradient. Every
// tensor has a gradient but the masks. Memory beyond inputs and outputs is O(Tq + Tk) for each
// head. Differentiable twice; the second derivative runs through the reference.
at::Tensor talking_heads_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   const TalkingHeadsOptions& options = {});

}  // namespace headloom

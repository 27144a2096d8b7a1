#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

namespace headloom {

// B batch, H heads, T tokens, D width of queries and keys, E width of values, R block size.
struct HAttentionOptions {
  // R, even, 2 to 256. With T <= 2R the result is that of full attention.
  int64_t block_size = 16;
  // Token i sees tokens 0 .. i, and nothing that it sees depends on a later one.
  bool causal = false;
  // [H, 4R - 1], added to the scaled logits of every level: entry J - I + 2R - 1 for key group J
  // and query group I. Its gradient is computed.
  std::optional<at::Tensor> bias;
  // [B, T] bool, true where a token is padding: no one sees it, it takes no part in the means of
  // its groups, and its own output is zero. Holes are allowed.
  std::optional<at::Tensor> key_padding_mask;
  // [B, T] bool for the queries alone, where they are not the tokens of the keys; default:
  // key_padding_mask.
  std::optional<at::Tensor> query_padding_mask;
  // [S + 1] boundaries of S packed sequences; B must be 1. Each has levels of its own.
  std::optional<at::Tensor> cu_seqlens;
  // Default 1 / sqrt(D).
  std::optional<double> scale;
  // Dropout on the weights, 0 <= p < 1: a query group and a key group keep or lose each other.
  double dropout_p = 0.0;
  // 0-dim int64; drawn from torch's generator when absent and dropout_p > 0.
  std::optional<at::Tensor> seed;
  // "coarse": far keys are scored against the group of the query, as in the paper. "fine": against
  // the query itself; closer to full attention, with O(R log(T / R)) instead of O(R) work a token.
  std::string query_mode = "coarse";
  // Subtract the mean of the keys first, which full attention would not notice. Not with causal.
  bool center_keys = false;
};

// Hierarchical attention (Zhu and Soricut, H-Transformer-1D, ACL 2021, sections 4 to 6):
//
//   O_i = sum_l sum_J w^l_iJ V^l_J,   w^l_iJ = c_J exp(scale <Q^l_i, K^l_J> + bias) / (sum of all)
//
// Level l groups tokens by 2^l: K^l and V^l are means over the group, c_J its size, Q^l its mean
// or, when causal, its first token. Tokens in the same or in neighbouring blocks of R see each
// other at level 0; every other pair at the lowest level where their groups are in neighbouring
// blocks of R groups. Every pair is counted exactly once and every row of weights sums to one.
//
// q, k [B, H, T, D], v [B, H, T, E] -> [B, H, T, E]; any strides and any T, float64, float32,
// bfloat16 or float16, sums in float32 at least. O(T R) work and O(T) memory. A token with nothing
// to attend gets zeros and zero gradient. Differentiable twice; the second derivative runs through
// torch operations level by level, in O(T R) memory.
at::Tensor h_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       const HAttentionOptions& options = {});

// The weight of every token for every other, [B, H, T, T]: h_attention is their product with v. To
// look at, and the oracle of the tests: plain differentiable torch operations, O(T^2) memory. No
// cu_seqlens.
at::Tensor h_attention_weights(const at::Tensor& q, const at::Tensor& k,
                               const HAttentionOptions& options = {});

}  // namespace headloom

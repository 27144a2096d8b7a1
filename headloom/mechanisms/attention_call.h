#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>
#include <vector>

#include "headloom/kernels/attention.h"

// What the members of the dot-product family hand to the tile engine (kernels/attention.h), on the
// processor; a forward pass of a few queries, as in decoding, goes to torch's fused kernel. B
// batch, H heads, Tq queries, Tk keys, D width of queries and keys, Dv width of values.
namespace headloom {

struct AttentionCall {
  at::Tensor q;                 // [B, Hq, Tq, D]; Hq divides H: neighbouring heads share queries
  at::Tensor k;                 // [B, Hk, Tk, D]; undefined: the keys are q
  at::Tensor v;                 // [B, H, Tk, Dv]
  at::Tensor fold;              // [H, D, D] in the type of sums, or undefined: keys meet q F
  at::Tensor bias;              // broadcasts to [B, H, Tq, Tk], or undefined
  at::Tensor key_padding_mask;  // [B, Tk] bool, or undefined
  bool causal = false;
  double scale = 1.0;
  double dropout_p = 0.0;
  std::vector<kernels::AttentionSequence> sequences;
  bool packed = false;  // where they come from
  // Half-tile form, where kernels/attention.h allows it.
  bool symmetric = false;
};

// Each element of the batch by itself. `seed` is read when there is dropout.
std::vector<kernels::AttentionSequence> whole_sequences(int64_t batch, int64_t queries,
                                                        int64_t keys, double dropout_p,
                                                        const at::Tensor& seed);

// The sequences that are packed in a batch of one; boundaries [S + 1] of queries and of keys. Each
// has a seed of its own, so that sequences do not share a dropout mask.
std::vector<kernels::AttentionSequence> packed_sequences(const std::vector<int64_t>& queries,
                                                         const std::vector<int64_t>& keys,
                                                         double dropout_p, const at::Tensor& seed);

// O [B, H, Tq, Dv] and log2 of the sums of e^logits [B, H, Tq] in the type of sums.
std::tuple<at::Tensor, at::Tensor> tile_attention(const AttentionCall& call);

struct AttentionGradients {
  at::Tensor q, k, v;  // with an undefined k, q holds the gradient of both
  at::Tensor fold;     // in the type of sums, undefined without a fold
};
AttentionGradients tile_attention_backward(const AttentionCall& call, const at::Tensor& grad_out,
                                           const at::Tensor& out, const at::Tensor& log2_sum);

// In the shape and type of the bias.
at::Tensor tile_attention_bias_backward(const AttentionCall& call, const at::Tensor& grad_out,
                                        const at::Tensor& out, const at::Tensor& log2_sum);

}  // namespace headloom

#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "headloom/mechanisms/h_transformer/h_transformer.h"

// P ranks, C tokens of each, R block size, l* with C = R 2^l*.
namespace headloom {

// How the processes that share a sequence talk. Ranks hold consecutive parts, rank 0 the first.
class HAttentionShards {
 public:
  virtual ~HAttentionShards() = default;
  virtual int64_t rank() const = 0;
  virtual int64_t ranks() const = 0;

  struct Pair {
    at::Tensor before, after;
  };
  // Sends to the ranks before and after this one and returns what came from them, in tensors like
  // those sent; zeros where there is no such rank. An undefined tensor is not sent, and nothing is
  // awaited from the other side.
  virtual Pair exchange(const Pair& sent) = 0;
  // Of all ranks, [P, ...]; and the sum over the ranks of one such tensor from each.
  virtual at::Tensor gather(const at::Tensor& own) = 0;
  virtual at::Tensor sum(const at::Tensor& all) = 0;

  // By the two above, so far, forward and backward; the parts meant for this rank left out.
  virtual int64_t elements_sent() const = 0;

  // Over c10d (Gloo, NCCL), by the group_name of a torch.distributed process group.
  static std::shared_ptr<HAttentionShards> of_group(const std::string& group_name);
};

// h_attention on a sequence of P C tokens of which each rank holds C consecutive ones: q, k
// [B, H, C, D], v [B, H, C, E] -> [B, H, C, E], equal to the same rows of the whole. Every rank
// must call it, with the same options and C = R 2^l*; P is a power of two, R a multiple of P / 2.
//
// A rank sends the first and the last R rows of K and V of each level below l* to its neighbours
// (only forward in time when causal) and the R rows of level l* to all: (2 l* + 1) R (D + E + 1)
// elements for each head, whatever the length but for its logarithm. Gradients go the same ways
// back; that of the bias is this rank's part of the sum. Masks are each rank's part of the whole.
//
// Refused: dropout, cu_seqlens, center_keys, query_mode "fine".
at::Tensor h_attention_sharded(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const HAttentionOptions& options,
                               const std::shared_ptr<HAttentionShards>& shards);

}  // namespace headloom

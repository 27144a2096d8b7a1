#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "headloom/mechanisms/h_transformer/h_transformer.h"
#include "headloom/mechanisms/token_mixer.h"

namespace headloom {

// What causal hierarchical attention must remember between steps. B batch, H heads, n new tokens,
// D width of queries and keys, E width of values, R block size, t tokens seen so far.
//
// Of each level the last complete block and the one that fills are kept, 2R rows, because nothing
// else of it can be seen again: after N tokens 2 R log2(N / R) rows of K and V, whatever the
// length. A level comes into being when its first block is complete, so generation has no end. What
// a query group sees of its level is computed once for the group and kept until the next begins; a
// token reads about 2.25 R keys on average. Fine queries share nothing: 1.5 R + 0.75 R (levels -
// 1).
//
// Rows are kept in float32 at least. Steps record no gradients.
class HAttentionState : public MixerState {
 public:
  // causal is understood; masks, cu_seqlens, dropout and center_keys are refused.
  explicit HAttentionState(const HAttentionOptions& options);

  // q, k [B, H, n, D], v [B, H, n, E] of the next n >= 1 tokens -> [B, H, n, E]: what h_attention
  // gives for them in the whole sequence. The first step may be a long one: it runs the kernels of
  // the whole pass. Later ones go token by token.
  at::Tensor step(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

  void reorder(const at::Tensor& index) override;
  int64_t length() const override { return length_; }
  int64_t bytes() const override;

  // Rows of K and V that hold something, over all levels; and how many keys were read so far by
  // steps of one token.
  int64_t entries() const;
  int64_t keys_read() const { return keys_read_; }

 private:
  struct Level {
    at::Tensor k, v;  // [B, H, 2R, .]: group J in row J mod 2R
    // What the present group sees here: log of the sum of weights [B, H, 1], mean [B, H, 1, E].
    at::Tensor log_sum, mean;
  };

  at::Tensor prefill(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);
  at::Tensor step_one(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);
  void add_level();
  void write(size_t level, int64_t group, const at::Tensor& k, const at::Tensor& v);
  void complete_groups();
  // Looks at the level with the query group [B, H, 1, D] of token `token`.
  void look(size_t level, const at::Tensor& q, int64_t token);
  at::Tensor merge() const;  // [B, H, 1, E]
  double scale(const at::Tensor& q) const;

  HAttentionOptions options_;
  std::vector<Level> levels_;
  int64_t length_ = 0, keys_read_ = 0;
};

}  // namespace headloom

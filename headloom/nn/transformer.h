#pragma once

#include <torch/nn/modules/embedding.h>

#include <memory>
#include <string>
#include <vector>

#include "headloom/base/options.h"
#include "headloom/mechanisms/token_mixer.h"
#include "headloom/nn/decoder_state.h"
#include "headloom/nn/transformer_block.h"

// B batch, T tokens, n new tokens, C model width.
//
// Initial values. Linear weights are Xavier-uniform (Glorot and Bengio, 2010), which keeps the
// scale of activations at any width; GPT-2's N(0, 0.02) does so near C = 1000 only and is too small
// for small models. Biases are 0, norms the identity. In the pre-norm order 2 * layers terms add up
// in one residual stream, so the projections that write to it (ffn_out, and the mixer's out_proj
// where it has one) are scaled by 1 / sqrt(2 layers) (Radford et al., 2019, section 2.3). The
// embedding is N(0, 0.02): as a tied output projection it starts near the uniform distribution.
// With sinusoidal positions it is N(0, 1 / sqrt(C)), because the input is then the embedding times
// sqrt(C) (Vaswani et al., 2017, section 3.4) and so has the scale of the sinusoids. Learned
// positions are N(0, 0.02), like the embedding that they are added to.
namespace headloom::nn {

struct TransformerConfig {
  int64_t vocabulary = 0;  // token ids 0 .. vocabulary - 1
  int64_t dim = 128;       // C
  int64_t layers = 4;
  int64_t heads = 4;                  // divides dim
  int64_t ffn = 512;                  // hidden width of the feed-forward part
  std::string norm = "pre";           // "pre" (with a final norm) or "post" (Vaswani et al., 2017)
  std::string positions = "learned";  // "learned", "sinusoidal" or "none"
  int64_t max_length = 1024;          // longest sequence; rows of the position table
  int64_t segments = 0;               // kinds of tokens with a vector each (BERT's token types)
  bool embedding_norm = false;        // a norm between the embedding and the blocks
  double norm_eps = 1e-5;             // of all norms
  std::string norm_type = "layer";    // "layer" or "rms" (norm.h), all norms
  std::string activation = "gelu";    // "gelu" (exact, by the error function), "relu", "gated_gelu"
  double dropout = 0.0;               // after embedding, each mixer and each feed-forward part
  double mixing_dropout = 0.0;        // on the mixing weights
  bool causal = false;
  std::string mixer = "dot_product";  // a name of mechanisms/registry.h
  Options mixer_options;
};

// Refuses impossible values, each by name, and an unknown mixer. The mixer's own options are
// checked when it is built.
void check_config(const TransformerConfig& config);

// Embedding, positions, segments and blocks. An encoder when the configuration is not causal, a
// decoder-only stack when it is. Parameters embedding.weight [V, C], positions [max_length, C]
// (learned; a buffer when sinusoidal), segments [segments, C] and embedding_norm.* when there are
// some, blocks.<i>.*, and final_norm.* when pre-norm.
class Transformer : public torch::nn::Module {
 public:
  explicit Transformer(const TransformerConfig& config);

  // tokens [B, T] int64, values in [0, V) -> [B, T, C]; pre-norm ends with the final norm, callers
  // add their head. Positions count columns from 0, padding included; in a packed batch
  // (masks.cu_seqlens, B = 1) they start again at every boundary. Refuses a sequence longer than
  // max_length and, on the processor, token ids outside the vocabulary. kinds [B, T] int64, values
  // in [0, segments), undefined for zeros; a model without segments takes no notice of them.
  at::Tensor forward(const at::Tensor& tokens, const Masks& masks = {},
                     const at::Tensor& kinds = {});
  // The same of rows of the embedding, [B, T, C], in the place of tokens: what has a gradient at
  // every position.
  at::Tensor forward_rows(const at::Tensor& rows, const Masks& masks = {},
                          const at::Tensor& kinds = {});

  // Refused unless the configuration is causal.
  DecoderState new_state(int64_t batch) const;
  // tokens [B, n] -> [B, n, C], n >= 0, at state.position; without dropout (eval()), steps over the
  // pieces of a sequence equal forward() on the whole. Refuses to pass max_length and another batch
  // than the state's, in both cases before the state changes.
  at::Tensor step(const at::Tensor& tokens, DecoderState& state);

  const TransformerConfig& config() const { return config_; }
  const torch::nn::Embedding& embedding() const { return embedding_; }
  // Operations (multiply-adds counted twice) of one forward pass over one sequence: mixers and
  // feed-forward parts.
  double flops(int64_t length) const;

 private:
  at::Tensor forward_positions(const at::Tensor& rows, const Masks& masks) const;
  at::Tensor position_rows(int64_t begin, int64_t count) const;
  at::Tensor place(at::Tensor rows, const at::Tensor& positions, const at::Tensor& kinds);
  at::Tensor finish(const at::Tensor& x);

  TransformerConfig config_;
  torch::nn::Embedding embedding_{nullptr};
  at::Tensor position_table_;  // [max_length, C]; undefined when positions are "none"
  at::Tensor segment_table_;   // [segments, C]; undefined without segments
  Norm embedding_norm_{nullptr};
  std::vector<std::shared_ptr<TransformerBlock>> blocks_;
  Norm final_norm_{nullptr};  // pre-norm only
};

}  // namespace headloom::nn

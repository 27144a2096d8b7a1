#pragma once

#include <memory>
#include <optional>
#include <string>

#include "headloom/base/options.h"
#include "headloom/mechanisms/linear.h"
#include "headloom/mechanisms/token_mixer.h"
#include "headloom/nn/norm.h"

// B batch, T tokens, n new tokens, S memory tokens, C model width.
namespace headloom::nn {

// A mechanism and how it is set up.
struct MixerChoice {
  std::string name = "dot_product";  // of mechanisms/registry.h
  int64_t heads = 8;                 // divides the width
  double dropout = 0.0;              // on the mixing weights
  Options options;
};

struct BlockConfig {
  int64_t dim = 0, ffn = 0;         // C and the hidden width of the feed-forward part
  std::string norm = "pre";         // "pre" or "post"
  std::string norm_type = "layer";  // "layer" or "rms"
  std::string activation = "gelu";  // "gelu", "relu" or "gated_gelu"
  double dropout = 0.0;             // after each mixer and each feed-forward part
  double ffn_dropout = 0.0;         // after the activation
  int64_t layer = 0, layers = 1;
  double norm_eps = 1e-5;
  bool causal = false;
  MixerChoice mixer;
  std::optional<MixerChoice> cross;  // a decoder block that looks at a memory
};

// What an encoder hands to a decoder. padding_mask is true at padding; undefined: there is none.
struct Memory {
  at::Tensor states;        // [B, S, C]
  at::Tensor padding_mask;  // [B, S] bool
};

// Two terms, or three with a cross mixer, each added to x: the mixer, the cross mixer, the
// feed-forward part. Pre-norm: x + dropout(term(norm(x))). Post-norm: norm(x + dropout(term(x))).
// ffn(x) = dropout(activation(x W1 + b1)) W2 + b2; with "gated_gelu", as T5 1.1 has it (Shazeer,
// 2020, GLU Variants Improve Transformer), dropout(gelu(x Wg) * (x W1)) W2 without biases and with
// GELU's form by tanh. Parameters mixer_norm.*, mixer.*, cross_norm.*, cross.*, ffn_norm.*
// (norm.h), ffn_in.* [ffn, C], ffn_gate.weight [ffn, C] when gated, ffn_out.* [C, ffn].
class TransformerBlock : public torch::nn::Module {
 public:
  explicit TransformerBlock(const BlockConfig& config);

  // [B, T, C] -> [B, T, C]; the second form for blocks with a cross mixer.
  at::Tensor forward(const at::Tensor& x, const Masks& masks);
  at::Tensor forward(const at::Tensor& x, const Masks& masks, const Memory& memory);
  // [B, n, C] -> [B, n, C]; `memory` is a state of the cross mixer.
  at::Tensor step(const at::Tensor& x, MixerState& state);
  at::Tensor step(const at::Tensor& x, MixerState& state, const MixerState& memory);
  const TokenMixer& mixer() const { return *mixer_; }
  // Operations (multiply-adds counted twice) of one forward pass over a sequence of `length`, and a
  // memory as long.
  double flops(int64_t length) const;
  // With its part of a memory read; blocks with a cross mixer only.
  std::unique_ptr<MixerState> new_cross_state(const Memory& memory);

 private:
  template <class Term>
  at::Tensor add(const at::Tensor& x, Norm& norm, const Term& term);
  at::Tensor feed_forward(const at::Tensor& x);
  at::Tensor drop(const at::Tensor& x, double p) const;

  bool pre_norm_, gelu_;
  double dropout_, ffn_dropout_;
  std::shared_ptr<TokenMixer> mixer_, cross_;
  Norm mixer_norm_{nullptr}, cross_norm_{nullptr}, ffn_norm_{nullptr};
  Linear ffn_in_{nullptr}, ffn_gate_{nullptr}, ffn_out_{nullptr};
};

}  // namespace headloom::nn

#pragma once

#include "headloom/mechanisms/linear.h"
#include "headloom/nn/transformer.h"

namespace headloom::nn {

// B batch, T tokens, n new tokens, V vocabulary.

// A Transformer and its output projection onto the vocabulary: the embedding itself (Press and
// Wolf, 2017) unless told otherwise, and then output.weight [V, C], N(0, 0.02), without bias.
// Parameters transformer.* and, untied, output.weight. With a causal configuration, decoder-only.
class LanguageModel : public torch::nn::Module {
 public:
  explicit LanguageModel(const TransformerConfig& config, bool tie_embedding = true);

  at::Tensor forward(const at::Tensor& tokens, const Masks& masks = {});  // [B, T] -> [B, T, V]
  DecoderState new_state(int64_t batch) const;
  at::Tensor step(const at::Tensor& tokens, DecoderState& state);  // [B, n] -> [B, n, V]
  // A step that projects the last new token alone: [B, n] -> [B, V], n >= 1. What follows a prompt
  // without the T * V logits of the prompt itself.
  at::Tensor next_logits(const at::Tensor& tokens, DecoderState& state);
  const TransformerConfig& config() const { return transformer_->config(); }
  // Transformer::flops() and the output projection.
  double flops(int64_t length) const;

 private:
  at::Tensor project(const at::Tensor& hidden) const;

  std::shared_ptr<Transformer> transformer_;
  Linear output_{nullptr};  // no bias; absent when tied
};

}  // namespace headloom::nn

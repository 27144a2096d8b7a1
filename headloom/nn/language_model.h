#pragma once

#include "headloom/nn/transformer.h"

namespace headloom::nn {

// A decoder-only Transformer and its output projection onto the vocabulary, tied to the embedding
// unless told otherwise.
class LanguageModel : public torch::nn::Module {
 public:
  explicit LanguageModel(const TransformerConfig& config, bool tie_embedding = true);

  at::Tensor forward(const at::Tensor& tokens, const Masks& masks = {});  // [B, T] -> [B, T, V]
  DecoderState new_state(int64_t batch) const;
  at::Tensor step(const at::Tensor& tokens, DecoderState& state);  // [B, n] -> [B, n, V]
  const TransformerConfig& config() const { return transformer_->config(); }
  double flops(int64_t length) const;

 private:
  at::Tensor project(const at::Tensor& hidden) const;

  std::shared_ptr<Transformer> transformer_;
  torch::nn::Linear output_{nullptr};  // no bias; absent when tied
};

}  // namespace headloom::nn

#include "headloom/nn/language_model.h"

#include <ATen/ATen.h>
#include <torch/nn/init.h>

#include "headloom/base/check.h"

namespace headloom::nn {

using at::Tensor;

LanguageModel::LanguageModel(const TransformerConfig& config, bool tie_embedding)
    : transformer_(register_module("transformer", std::make_shared<Transformer>(config))) {
  if (tie_embedding) return;
  output_ = register_module(
      "output", Linear(torch::nn::LinearOptions(config.dim, config.vocabulary).bias(false)));
  torch::nn::init::normal_(output_->weight, 0.0, 0.02);
}

// [..., C] -> [..., V]
Tensor LanguageModel::project(const Tensor& hidden) const {
  return headloom::linear(hidden, output_ ? output_->weight : transformer_->embedding()->weight);
}

Tensor LanguageModel::forward(const Tensor& tokens, const Masks& masks) {
  return project(transformer_->forward(tokens, masks));
}

DecoderState LanguageModel::new_state(int64_t batch) const {
  return transformer_->new_state(batch);
}

Tensor LanguageModel::step(const Tensor& tokens, DecoderState& state) {
  return project(transformer_->step(tokens, state));
}

Tensor LanguageModel::next_logits(const Tensor& tokens, DecoderState& state) {
  HEADLOOM_CHECK(tokens.dim() == 2 && tokens.size(1) >= 1, "language model",
                 "tokens of shape [B, n], n at least 1", cat("shape ", tokens.sizes()));
  return project(transformer_->step(tokens, state).select(1, tokens.size(1) - 1));
}

double LanguageModel::flops(int64_t length) const {
  return transformer_->flops(length) + 2.0 * static_cast<double>(length) *
                                           static_cast<double>(config().dim) *
                                           static_cast<double>(config().vocabulary);
}

}  // namespace headloom::nn

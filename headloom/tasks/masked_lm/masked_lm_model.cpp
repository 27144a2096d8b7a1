#include "headloom/tasks/masked_lm/masked_lm_model.h"

#include <ATen/ATen.h>
#include <torch/nn/init.h>

#include "headloom/tasks/masked_lm/masking.h"

namespace headloom::tasks::masked_lm {

using at::Tensor;

MaskedLanguageModel::MaskedLanguageModel(nn::TransformerConfig config, bool tie_embedding,
                                         double share)
    : share_(share) {
  config.causal = false;
  encoder_ = register_module("encoder", std::make_shared<nn::Transformer>(config));
  dense_ = register_module("dense", Linear(config.dim, config.dim));
  torch::nn::init::xavier_uniform_(dense_->weight);
  torch::nn::init::zeros_(dense_->bias);
  norm_ = register_module("norm", nn::Norm("layer", config.dim, config.norm_eps));
  bias_ = register_parameter("bias", at::zeros({config.vocabulary}));
  if (tie_embedding) return;
  output_ = register_module(
      "output", Linear(torch::nn::LinearOptions(config.dim, config.vocabulary).bias(false)));
  torch::nn::init::normal_(output_->weight, 0.0, 0.02);
}

Tensor MaskedLanguageModel::head(const Tensor& hidden) {
  const Tensor features = norm_(at::gelu(dense_(hidden)));
  return headloom::linear(features, output_ ? output_->weight : encoder_->embedding()->weight,
                          bias_);
}

Tensor MaskedLanguageModel::forward(const Batch& batch) {
  const Tensor hidden = encoder_->forward(batch.tokens, batch.masks, batch.segments);  // [B, T, C]
  if (!batch.targets.defined()) return head(hidden);
  const Tensor chosen = (batch.targets != kNotPredicted).flatten().nonzero().squeeze(1);  // [M]
  return head(hidden.flatten(0, 1).index_select(0, chosen));                              // [M, V]
}

double MaskedLanguageModel::flops(int64_t length) const {
  const auto dim = static_cast<double>(encoder_->config().dim);
  const auto vocabulary = static_cast<double>(encoder_->config().vocabulary);
  return encoder_->flops(length) +
         2.0 * share_ * static_cast<double>(length) * dim * (dim + vocabulary);
}

}  // namespace headloom::tasks::masked_lm

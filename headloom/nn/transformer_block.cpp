#include <torch/nn/functional/activation.h>
#include <torch/nn/init.h>

#include <cmath>

#include "headloom/mechanisms/registry.h"
#include "headloom/nn/transformer.h"

namespace headloom::nn {
namespace {

using at::Tensor;

torch::nn::Linear xavier_linear(int64_t in, int64_t out) {
  torch::nn::Linear linear(in, out);
  torch::nn::init::xavier_uniform_(linear->weight);
  torch::nn::init::zeros_(linear->bias);
  return linear;
}

torch::nn::LayerNorm layer_norm(int64_t dim) {
  return torch::nn::LayerNorm(torch::nn::LayerNormOptions({dim}));
}

MixerConfig mixer_config(const TransformerConfig& config, int64_t layer) {
  MixerConfig mixer;
  mixer.dim = config.dim;
  mixer.heads = config.heads;
  mixer.causal = config.causal;
  mixer.dropout = config.mixing_dropout;
  mixer.layer = layer;
  mixer.layers = config.layers;
  return mixer;
}

}  // namespace

TransformerBlock::TransformerBlock(const TransformerConfig& config, int64_t layer)
    : pre_norm_(config.norm == "pre"),
      gelu_(config.activation == "gelu"),
      dropout_(config.dropout) {
  mixer_norm_ = register_module("mixer_norm", layer_norm(config.dim));
  mixer_ = register_module(
      "mixer", make_mixer(config.mixer, mixer_config(config, layer), config.mixer_options));
  ffn_norm_ = register_module("ffn_norm", layer_norm(config.dim));
  ffn_in_ = register_module("ffn_in", xavier_linear(config.dim, config.ffn));
  ffn_out_ = register_module("ffn_out", xavier_linear(config.ffn, config.dim));
  if (!pre_norm_) return;

  const torch::NoGradGuard no_grad;
  const double scale = 1.0 / std::sqrt(2.0 * static_cast<double>(config.layers));
  ffn_out_->weight.mul_(scale);
  const auto parameters = mixer_->named_parameters();
  if (const Tensor* out = parameters.find("out_proj.weight")) Tensor(*out).mul_(scale);
}

Tensor TransformerBlock::drop(const Tensor& x) const {
  return torch::dropout(x, dropout_, is_training());
}

Tensor TransformerBlock::feed_forward(const Tensor& x) {
  const Tensor hidden = ffn_in_(x);  // [B, T, ffn]
  return ffn_out_(gelu_ ? torch::gelu(hidden) : torch::relu(hidden));
}

template <class Mix>
Tensor TransformerBlock::mix_and_feed(const Tensor& x, const Mix& mix) {
  if (pre_norm_) {
    const Tensor mixed = x + drop(mix(mixer_norm_(x)));
    return mixed + drop(feed_forward(ffn_norm_(mixed)));
  }
  const Tensor mixed = mixer_norm_(x + drop(mix(x)));
  return ffn_norm_(mixed + drop(feed_forward(mixed)));
}

Tensor TransformerBlock::forward(const Tensor& x, const Masks& masks) {
  return mix_and_feed(x, [&](const Tensor& y) { return mixer_->forward(y, masks); });
}

Tensor TransformerBlock::step(const Tensor& x, MixerState& state) {
  return mix_and_feed(x, [&](const Tensor& y) { return mixer_->step(y, state); });
}

}  // namespace headloom::nn

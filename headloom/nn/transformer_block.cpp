#include "headloom/nn/transformer_block.h"

#include <torch/nn/functional/activation.h>
#include <torch/nn/init.h>

#include <cmath>

#include "headloom/mechanisms/dropout.h"
#include "headloom/mechanisms/registry.h"

namespace headloom::nn {
namespace {

using at::Tensor;

Linear xavier_linear(int64_t in, int64_t out, bool bias) {
  Linear linear(torch::nn::LinearOptions(in, out).bias(bias));
  torch::nn::init::xavier_uniform_(linear->weight);
  if (bias) torch::nn::init::zeros_(linear->bias);
  return linear;
}

std::shared_ptr<TokenMixer> build(const BlockConfig& config, const MixerChoice& choice,
                                  bool causal) {
  MixerConfig mixer;
  mixer.dim = config.dim;
  mixer.heads = choice.heads;
  mixer.causal = causal;
  mixer.dropout = choice.dropout;
  mixer.layer = config.layer;
  mixer.layers = config.layers;
  return make_mixer(choice.name, mixer, choice.options);
}

void scale_output(const TokenMixer& mixer, double scale) {
  const auto parameters = mixer.named_parameters();
  if (const Tensor* out = parameters.find("out_proj.weight")) Tensor(*out).mul_(scale);
}

}  // namespace

TransformerBlock::TransformerBlock(const BlockConfig& config)
    : pre_norm_(config.norm == "pre"),
      gelu_(config.activation == "gelu"),
      dropout_(config.dropout),
      ffn_dropout_(config.ffn_dropout) {
  const auto norm = [&](const char* name) {
    return register_module(name, Norm(config.norm_type, config.dim, config.norm_eps));
  };
  const bool gated = config.activation == "gated_gelu";
  mixer_norm_ = norm("mixer_norm");
  mixer_ = register_module("mixer", build(config, config.mixer, config.causal));
  if (config.cross) {
    cross_norm_ = norm("cross_norm");
    cross_ = register_module("cross", build(config, *config.cross, /*causal=*/false));
  }
  ffn_norm_ = norm("ffn_norm");
  ffn_in_ = register_module("ffn_in", xavier_linear(config.dim, config.ffn, !gated));
  if (gated) ffn_gate_ = register_module("ffn_gate", xavier_linear(config.dim, config.ffn, false));
  ffn_out_ = register_module("ffn_out", xavier_linear(config.ffn, config.dim, !gated));
  if (!pre_norm_) return;

  const torch::NoGradGuard no_grad;
  const double terms = (cross_ ? 3.0 : 2.0) * static_cast<double>(config.layers);
  const double scale = 1.0 / std::sqrt(terms);
  ffn_out_->weight.mul_(scale);
  scale_output(*mixer_, scale);
  if (cross_) scale_output(*cross_, scale);
}

Tensor TransformerBlock::drop(const Tensor& x, double p) const {
  return headloom::dropout(x, p, is_training());
}

Tensor TransformerBlock::feed_forward(const Tensor& x) {
  const Tensor linear = ffn_in_(x);  // [B, T, ffn]
  const Tensor hidden = ffn_gate_ ? torch::gelu(ffn_gate_(x), "tanh") * linear
                        : gelu_   ? torch::gelu(linear)
                                  : torch::relu(linear);
  return ffn_out_(drop(hidden, ffn_dropout_));
}

template <class Term>
Tensor TransformerBlock::add(const Tensor& x, Norm& norm, const Term& term) {
  return pre_norm_ ? x + drop(term(norm(x)), dropout_) : norm(x + drop(term(x), dropout_));
}

Tensor TransformerBlock::forward(const Tensor& x, const Masks& masks) {
  const Tensor mixed =
      add(x, mixer_norm_, [&](const Tensor& y) { return mixer_->forward(y, masks); });
  return add(mixed, ffn_norm_, [&](const Tensor& y) { return feed_forward(y); });
}

Tensor TransformerBlock::forward(const Tensor& x, const Masks& masks, const Memory& memory) {
  const Tensor mixed =
      add(x, mixer_norm_, [&](const Tensor& y) { return mixer_->forward(y, masks); });
  const Tensor informed = add(mixed, cross_norm_, [&](const Tensor& y) {
    return cross_->cross(y, memory.states, memory.padding_mask);
  });
  return add(informed, ffn_norm_, [&](const Tensor& y) { return feed_forward(y); });
}

Tensor TransformerBlock::step(const Tensor& x, MixerState& state) {
  const Tensor mixed = add(x, mixer_norm_, [&](const Tensor& y) { return mixer_->step(y, state); });
  return add(mixed, ffn_norm_, [&](const Tensor& y) { return feed_forward(y); });
}

Tensor TransformerBlock::step(const Tensor& x, MixerState& state, const MixerState& memory) {
  const Tensor mixed = add(x, mixer_norm_, [&](const Tensor& y) { return mixer_->step(y, state); });
  const Tensor informed =
      add(mixed, cross_norm_, [&](const Tensor& y) { return cross_->cross_step(y, memory); });
  return add(informed, ffn_norm_, [&](const Tensor& y) { return feed_forward(y); });
}

double TransformerBlock::flops(int64_t length) const {
  const double matrices = ffn_gate_ ? 3.0 : 2.0;
  const double feed_forward =
      2.0 * matrices * static_cast<double>(length) * static_cast<double>(ffn_in_->weight.numel());
  return mixer_->flops(length) + (cross_ ? cross_->flops(length) : 0.0) + feed_forward;
}

std::unique_ptr<MixerState> TransformerBlock::new_cross_state(const Memory& memory) {
  return cross_->new_cross_state(memory.states, memory.padding_mask);
}

}  // namespace headloom::nn

#include "headloom/mechanisms/light_conv/light_conv_module.h"

#include <ATen/ATen.h>
#include <torch/nn/init.h>

#include <algorithm>

#include "headloom/base/check.h"
#include "headloom/mechanisms/dropout.h"
#include "headloom/mechanisms/light_conv/light_conv_dispatch.h"
#include "headloom/mechanisms/light_conv/light_conv_step.h"
#include "headloom/tensor/gradients.h"

namespace headloom {
namespace {

using at::Tensor;

Linear projection(int64_t in, int64_t out, bool bias) {
  Linear linear(torch::nn::LinearOptions(in, out).bias(bias));
  torch::nn::init::xavier_uniform_(linear->weight);
  if (bias) torch::nn::init::zeros_(linear->bias);
  return linear;
}

double probability(OptionReader& options, const std::string& where, const char* key,
                   double fallback) {
  const double p = options.number(key, fallback);
  HEADLOOM_CHECK(p >= 0.0 && p < 1.0, where, cat(key, " in [0, 1)"), cat(p));
  return p;
}

int64_t kernel_size_of_layer(OptionReader& options, const std::string& where, int64_t layer) {
  const std::vector<int64_t> sizes = options.integers("kernel_sizes", {3, 7, 15, 31, 31, 31, 31});
  HEADLOOM_CHECK(!sizes.empty(), where, "kernel_sizes of at least one layer", "an empty list");
  for (int64_t size : sizes) {
    HEADLOOM_CHECK(size >= 1 && size <= kMaxKernelSize, where,
                   cat("kernel_sizes of 1 to ", kMaxKernelSize), cat(size));
  }
  return sizes[std::min<size_t>(layer, sizes.size() - 1)];
}

const char* const kCommonOptions =
    "kernel_sizes ([3, 7, 15, 31, 31, 31, 31]): kernel width of each layer, the last one for the "
    "deeper\n"
    "conv_dim (model.dim): channels of the convolution\n"
    "glu (true): gated linear unit before the convolution\n"
    "weight_softmax (true): softmax over the taps of a kernel\n"
    "conv_bias (false): bias after the convolution\n"
    "weight_dropout (model.mixing_dropout): DropConnect on the weights\n"
    "input_dropout (0): dropout on the input\n";

constexpr const char* kPaper =
    "Wu et al., Pay Less Attention with Lightweight and Dynamic Convolutions, ICLR 2019";

template <class Mixer>
std::shared_ptr<TokenMixer> make(const MixerConfig& config, OptionReader& options) {
  return std::make_shared<Mixer>(config, options);
}

const RegisterMechanism kRegisterLight({
    "light_conv",
    "lightweight convolution: one softmax-normalised kernel a head",
    kPaper,
    cat(kCommonOptions,
        "dropconnect (\"shared\"): one mask for all positions, or \"per_position\""),
    make<LightConvMixer>,
});

const RegisterMechanism kRegisterDynamic({
    "dynamic_conv",
    "dynamic convolution: a kernel a head and position, predicted from the token",
    kPaper,
    cat(kCommonOptions,
        "renorm_padding (false): softmax over the taps inside the sequence only\n"
        "kernel_bias (false): whether the prediction of kernels has a bias"),
    make<DynamicConvMixer>,
});

}  // namespace

ConvMixer::ConvMixer(const std::string& mechanism, const MixerConfig& config, OptionReader& options)
    : where_("mixer " + mechanism), config_(config) {
  kernel_size_ = kernel_size_of_layer(options, where_, config.layer);
  glu_ = options.boolean("glu", true);
  weight_softmax_ = options.boolean("weight_softmax", true);
  weight_dropout_ = probability(options, where_, "weight_dropout", config.dropout);
  input_dropout_ = probability(options, where_, "input_dropout", 0.0);
  channels_ = options.integer("conv_dim", config.dim);
  HEADLOOM_CHECK(channels_ > 0 && channels_ % config.heads == 0, where_,
                 cat("conv_dim to be a multiple of the ", config.heads, " heads"), cat(channels_));
  in_proj_ = register_module(
      "in_proj", projection(config.dim, glu_ ? 2 * channels_ : channels_, /*bias=*/true));
  if (options.boolean("conv_bias", false)) {
    conv_bias_ = register_parameter("conv_bias", at::zeros({channels_}));
  }
  out_proj_ = register_module("out_proj", projection(channels_, config.dim, /*bias=*/true));
}

Tensor ConvMixer::values_of(const Tensor& x) {
  const Tensor projected = in_proj_(headloom::dropout(x, input_dropout_, is_training()));
  return glu_ ? at::glu(projected, -1) : projected;
}

void ConvMixer::fill(ConvOptions& options, const Masks& masks) const {
  options.padding = config_.causal ? "causal" : "same";
  options.weight_softmax = weight_softmax_;
  options.conv_bias = as_optional(conv_bias_);
  options.key_padding_mask = as_optional(masks.key_padding_mask);
  options.cu_seqlens = as_optional(masks.cu_seqlens);
  options.weight_dropout = is_training() ? weight_dropout_ : 0.0;
}

Tensor ConvMixer::forward(const Tensor& x, const Masks& masks) {
  return out_proj_(convolve(values_of(x), masks));
}

std::unique_ptr<MixerState> ConvMixer::new_state(int64_t batch) const {
  HEADLOOM_CHECK(config_.causal, where_, "a causal mixer to decode with", "a bidirectional one");
  return std::make_unique<ConvState>(batch, kernel_size_, channels_,
                                     out_proj_->weight.detach().options());
}

Tensor ConvMixer::step(const Tensor& x, MixerState& state) {
  auto* seen = dynamic_cast<ConvState*>(&state);
  HEADLOOM_CHECK(seen, where_, "a state of its own new_state()", "another mixer's state");
  HEADLOOM_CHECK(x.size(0) == seen->batch(), where_, cat("a batch of ", seen->batch()),
                 cat("a batch of ", x.size(0)));
  ConvState::Step options;
  options.weight_softmax = weight_softmax_;
  options.renorm_padding = renorm_padding_;
  options.conv_bias = conv_bias_;
  const Tensor values = values_of(x);
  const Tensor mixed = seen->step(values, step_logits(values), options);
  return out_proj_(mixed.to(values.scalar_type()));
}

double ConvMixer::flops(int64_t length) const {
  const double width = static_cast<double>(config_.dim);
  const double channels = static_cast<double>(channels_);
  const double per_token = (glu_ ? 3 : 2) * width * channels +
                           static_cast<double>(kernel_size_) * channels + weight_flops_per_token();
  return 2 * static_cast<double>(length) * per_token;
}

LightConvMixer::LightConvMixer(const MixerConfig& config, OptionReader& options)
    : ConvMixer("light_conv", config, options) {
  dropconnect_ = options.choice("dropconnect", "shared", {"shared", "per_position"});
  weight_ = register_parameter("weight", at::empty({config.heads, kernel_size_}));
  torch::nn::init::xavier_uniform_(weight_);
}

Tensor LightConvMixer::convolve(const Tensor& values, const Masks& masks) {
  LightConvOptions options;
  fill(options, masks);
  options.dropconnect = dropconnect_;
  return light_conv(values, weight_, options);
}

Tensor LightConvMixer::step_logits(const Tensor&) {
  return weight_;
}

DynamicConvMixer::DynamicConvMixer(const MixerConfig& config, OptionReader& options)
    : ConvMixer("dynamic_conv", config, options) {
  renorm_padding_ = options.boolean("renorm_padding", false);
  HEADLOOM_CHECK(weight_softmax_ || !renorm_padding_, where_, "weight_softmax with renorm_padding",
                 "renorm_padding alone");
  kernel_proj_ = register_module("kernel_proj", projection(channels_, config.heads * kernel_size_,
                                                           options.boolean("kernel_bias", false)));
}

Tensor DynamicConvMixer::kernel_logits(const Tensor& values) {
  return kernel_proj_(values).unflatten(-1, {config_.heads, kernel_size_});
}

Tensor DynamicConvMixer::convolve(const Tensor& values, const Masks& masks) {
  DynamicConvOptions options;
  fill(options, masks);
  options.renorm_padding = renorm_padding_;
  // The operator zeroes what it reads; kernel_proj must not see padding either, where 0 times a
  // stray NaN would reach its gradient.
  const Tensor input = masks.key_padding_mask.defined()
                           ? values.masked_fill(masks.key_padding_mask.unsqueeze(-1), 0.0)
                           : values;
  return dynamic_conv(input, kernel_logits(input), options);
}

Tensor DynamicConvMixer::step_logits(const Tensor& values) {
  return kernel_logits(values);
}

double DynamicConvMixer::weight_flops_per_token() const {
  return static_cast<double>(channels_ * config_.heads * kernel_size_);
}

}  // namespace headloom

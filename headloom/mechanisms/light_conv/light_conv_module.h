#pragma once

#include "headloom/mechanisms/light_conv/light_conv.h"
#include "headloom/mechanisms/linear.h"
#include "headloom/mechanisms/registry.h"

// B batch, T time, n new tokens, D model width, C channels, H heads, K kernel width.
namespace headloom {

// What both convolution mixers share (Wu et al., 2019, section 3.2): dropout, a projection D -> 2C
// with a gated linear unit (the first half times the sigmoid of the second), zeros at padding, the
// convolution, a projection C -> D. Causal mixers have P = K - 1, others P = K div 2. Zeros come
// after the gate because in_proj has a bias.
//
// Parameters in_proj [2C, D] and out_proj [D, C] with biases, conv_bias [C] if asked for;
// projections start Xavier-uniform, biases at 0. Options of the recipe:
//   conv_dim (the model width): C, a multiple of the heads
//   kernel_sizes ([3, 7, 15, 31, 31, 31, 31]): K of each layer; the last one serves deeper layers
//   glu (true): the gate; without it in_proj is [C, D]
//   weight_softmax (true), conv_bias (false): as in light_conv.h
//   weight_dropout (the mixing dropout): DropConnect in training
//   input_dropout (0): dropout on the input in training
class ConvMixer : public TokenMixer {
 public:
  at::Tensor forward(const at::Tensor& x, const Masks& masks) override;
  // The state is the last K - 1 inputs of the convolution, [B, K - 1, C], however long the
  // sequence; a step allocates nothing for it or for the convolution (light_conv_step.h).
  std::unique_ptr<MixerState> new_state(int64_t batch) const override;
  at::Tensor step(const at::Tensor& x, MixerState& state) override;
  double flops(int64_t length) const override;

 protected:
  ConvMixer(const std::string& mechanism, const MixerConfig& config, OptionReader& options);

  // values [B, T, C] -> [B, T, C]
  virtual at::Tensor convolve(const at::Tensor& values, const Masks& masks) = 0;
  // The weights before their softmax for values [B, n, C]: [B, n, H, K], or [H, K] for all.
  virtual at::Tensor step_logits(const at::Tensor& values) = 0;
  virtual double weight_flops_per_token() const = 0;

  void fill(ConvOptions& options, const Masks& masks) const;

  std::string where_;  // in messages
  MixerConfig config_;
  int64_t kernel_size_, channels_;
  bool weight_softmax_, renorm_padding_ = false;

 private:
  at::Tensor values_of(const at::Tensor& x);  // [B, T, D] -> [B, T, C], input of the convolution

  bool glu_;
  double weight_dropout_, input_dropout_;
  Linear in_proj_{nullptr}, out_proj_{nullptr};
  at::Tensor conv_bias_;
};

// Parameter weight [H, K], Xavier-uniform with bound sqrt(6 / (H + K)). Option of its own:
// dropconnect ("shared"), as in light_conv.h.
class LightConvMixer : public ConvMixer {
 public:
  LightConvMixer(const MixerConfig& config, OptionReader& options);

 private:
  at::Tensor convolve(const at::Tensor& values, const Masks& masks) override;
  at::Tensor step_logits(const at::Tensor& values) override;
  double weight_flops_per_token() const override { return 0.0; }

  std::string dropconnect_;
  at::Tensor weight_;
};

// Parameter kernel_proj, weight [H K, C] and Xavier-uniform, predicts the kernel of a position from
// the convolution's input there; row h K + k feeds tap k of head h. Options of its own:
// renorm_padding (false), as in light_conv.h; kernel_bias (false), whether kernel_proj has a bias.
class DynamicConvMixer : public ConvMixer {
 public:
  DynamicConvMixer(const MixerConfig& config, OptionReader& options);

 private:
  at::Tensor convolve(const at::Tensor& values, const Masks& masks) override;
  at::Tensor step_logits(const at::Tensor& values) override;
  double weight_flops_per_token() const override;
  at::Tensor kernel_logits(const at::Tensor& values);  // [B, T, C] -> [B, T, H, K]

  Linear kernel_proj_{nullptr};
};

}  // namespace headloom

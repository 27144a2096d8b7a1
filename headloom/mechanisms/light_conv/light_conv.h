#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <variant>

namespace headloom {

// B batch, T time, C channels, H heads (H divides C), R = C / H channels of a head, K kernel width,
// 1 <= K <= 1023, P left padding. Channel c belongs to head c div R.

// P by name: "causal" is K - 1, so that the last tap reads the current position; "same" is K div 2,
// so that the taps of an odd kernel are centred and those of an even kernel reach K div 2 back and
// K div 2 - 1 ahead. Refuses other names.
int64_t left_padding(const std::string& name, int64_t kernel_size);

// What both convolutions take.
struct ConvOptions {
  // "same", "causal" or P itself, any P >= 0: a P above K - 1 delays the convolution further.
  std::variant<std::string, int64_t> padding = "same";
  // Normalise the K taps by a softmax; otherwise they are used as they come.
  bool weight_softmax = true;
  // [C], added to the output.
  std::optional<at::Tensor> conv_bias;
  // [B, T] bool, true at padding: x counts as 0 there, and so does the output, whose gradient is
  // ignored.
  std::optional<at::Tensor> key_padding_mask;
  // Packed sequences: B must be 1, sequence s is cu_seqlens[s] .. cu_seqlens[s+1]-1, and a tap that
  // leaves its sequence reads 0.
  std::optional<at::Tensor> cu_seqlens;
  // DropConnect: dropout on the weights after the softmax, 0 <= p < 1.
  double weight_dropout = 0.0;
  // 0-dim int64; drawn from torch's generator when absent and weight_dropout > 0.
  std::optional<at::Tensor> seed;
};

struct LightConvOptions : ConvOptions {
  // One DropConnect mask [H, K] for every position ("shared"), or one for each, [B, T, H, K]
  // ("per_position").
  std::string dropconnect = "shared";
};

struct DynamicConvOptions : ConvOptions {
  // Softmax over the taps that are in range only: inside 0 .. T-1, inside the sequence of a packed
  // batch and not padding. The weights of a position then always sum to 1.
  bool renorm_padding = false;
};

// Lightweight convolution (Wu et al., Pay Less Attention with Lightweight and Dynamic Convolutions,
// ICLR 2019, section 3), one kernel a head for all positions:
//
//   y[b, t, c] = sum_k softmax_k(weight[h(c), :])[k] x[b, t + k - P, c],   x = 0 outside 0 .. T-1
//
// x [B, T, C], weight [H, K] -> [B, T, C]. Any strides; float64, float32, bfloat16 or float16, with
// sums in float32 at least. The softmax is over all K taps also where some are out of range.
// Differentiable twice; the second derivative runs through the reference.
at::Tensor light_conv(const at::Tensor& x, const at::Tensor& weight,
                      const LightConvOptions& options = {});

// Dynamic convolution (section 4): the same with a kernel for each position, whose logits the
// caller predicts from x.
//
//   y[b, t, c] = sum_k softmax_k(kernel_logits[b, t, h(c), :])[k] x[b, t + k - P, c]
//
// x [B, T, C], kernel_logits [B, T, H, K] -> [B, T, C].
at::Tensor dynamic_conv(const at::Tensor& x, const at::Tensor& kernel_logits,
                        const DynamicConvOptions& options = {});

}  // namespace headloom

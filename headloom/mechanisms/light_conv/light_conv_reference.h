#pragma once

#include <ATen/core/Tensor.h>

#include "headloom/mechanisms/light_conv/light_conv_dispatch.h"

// B batch, T time, C channels, H heads, R = C / H, K kernel width, P left padding.
namespace headloom {

// The oracle of both convolutions, in plain differentiable torch operations on any device and in
// the dtype of x: K shifted multiply-adds over views of one zero-padded copy of x. `weight` is
// [H, K] or [B, T, H, K]. Memory: O(B T (C + H K)).
at::Tensor light_conv_reference(const at::Tensor& x, const at::Tensor& weight,
                                const ConvCall& call);

// The weights of some output positions, n of them.
struct TapWeights {
  at::Tensor normalised;  // [H, K] or [B, n, H, K]
  // What multiplies them: DropConnect, and 0 where a tap leaves its packed sequence. Broadcasts to
  // [B, n, H, K]; undefined means 1.
  at::Tensor multiplier;

  at::Tensor applied() const { return multiplier.defined() ? normalised * multiplier : normalised; }
};

// The weights of any range of output positions of one call.
class Taps {
 public:
  Taps(const at::Tensor& x, const at::Tensor& weight, const ConvCall& call);

  // `weight` is [H, K], or rows begin .. begin + n of [B, T, H, K].
  TapWeights weights(const at::Tensor& weight, int64_t begin, int64_t n) const;

  // x with zeros at padding, in front and behind: output position t reads rows t .. t + K - 1.
  at::Tensor window(const at::Tensor& x) const;  // [B, T, C] -> [B, T + K - 1 or more, C]
  // P, or the smallest padding that leaves nothing but zeros to read.
  int64_t left() const { return left_; }

 private:
  at::Tensor in_range(int64_t begin, int64_t n) const;  // [1 or B, n, 1, K] bool
  at::Tensor dropconnect(const at::Tensor& weight, int64_t begin, int64_t n) const;

  const ConvCall& call_;
  int64_t batch_, time_, heads_, kernel_size_, left_;
  at::Tensor first_, end_;  // [T] int64: the sequence of each position; where a softmax or a packed
                            // batch must know
};

// `y` with the bias added and with zeros at padding.
at::Tensor add_bias_and_mask(const at::Tensor& y, const ConvCall& call);
// Zeros where the mask is true. x [B, T, C]
at::Tensor zero_padding(const at::Tensor& x, const ConvCall& call);

}  // namespace headloom

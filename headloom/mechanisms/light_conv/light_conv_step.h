#pragma once

#include "headloom/mechanisms/token_mixer.h"

namespace headloom {

// B batch, n new tokens, C channels, H heads, K kernel width.

// What a causal convolution remembers between decoding steps: its newest K - 1 inputs, in a ring
// [B, K - 1, C] that is made once. A step writes the new inputs over the oldest and allocates
// nothing; reorder() keeps a second ring from its first call on.
class ConvState : public MixerState {
 public:
  ConvState(int64_t batch, int64_t kernel_size, int64_t channels, const at::TensorOptions& options);

  struct Step {
    bool weight_softmax = true;
    bool renorm_padding = false;  // softmax over the taps that read a token only
    at::Tensor conv_bias;         // [C] or undefined
  };
  // The convolution of values [B, n, C] and what came before them, with the kernels of logits [H,
  // K] or [B, n, H, K] -> [B, n, C]. Without a graph to record, on the processor, the outputs take
  // the place of `values`, which must therefore be the caller's own.
  at::Tensor step(const at::Tensor& values, const at::Tensor& logits, const Step& options);

  void reorder(const at::Tensor& index) override;
  int64_t length() const override { return length_; }
  int64_t bytes() const override;
  int64_t batch() const { return ring_.size(0); }
  const at::Tensor& ring() const { return ring_; }  // token t in row t mod (K - 1)

 private:
  // The fused step, in place.
  at::Tensor by_kernel(const at::Tensor& values, const at::Tensor& logits, const Step& options);
  // The same by the operators over the unrolled ring: differentiable, any device.
  at::Tensor by_operators(const at::Tensor& values, const at::Tensor& logits,
                          const Step& options) const;
  at::Tensor in_order() const;              // [B, K - 1, C], the oldest first
  void remember(const at::Tensor& values);  // puts the newest of values [B, n, C] into the ring

  at::Tensor ring_, spare_;
  int64_t length_ = 0;
};

}  // namespace headloom

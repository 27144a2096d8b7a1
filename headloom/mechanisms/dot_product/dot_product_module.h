#pragma once

#include "headloom/mechanisms/linear.h"
#include "headloom/mechanisms/query_key_source.h"
#include "headloom/mechanisms/registry.h"

namespace headloom {

// Multi-head scaled dot-product attention: softmax(Q K^T / sqrt(D)) V with Q, K, V = x W + b for
// each of H heads of width D = W / H, and an output projection. Parameters q_proj, k_proj, v_proj,
// each with weight [W, C] and bias [W], and out_proj with weight [C, W] and bias [C];
// Xavier-uniform weights, zero biases. Options of the recipe: bias (true), whether the projections
// have biases; width (C), of all heads together, W, a multiple of H; logit_scale (1), a factor on
// the logits, beside 1 / sqrt(D).
class DotProductMixer : public TokenMixer, public QueryKeySource {
 public:
  DotProductMixer(const MixerConfig& config, OptionReader& options);

  at::Tensor forward(const at::Tensor& x, const Masks& masks) override;
  at::Tensor cross(const at::Tensor& x, const at::Tensor& memory,
                   const at::Tensor& memory_padding_mask) override;
  // Keys and values of the memory, [B, H, S, D] each.
  std::unique_ptr<MixerState> new_cross_state(const at::Tensor& memory,
                                              const at::Tensor& memory_padding_mask) override;
  at::Tensor cross_step(const at::Tensor& x, const MixerState& state) override;
  std::unique_ptr<MixerState> new_state(int64_t batch) const override;
  at::Tensor step(const at::Tensor& x, MixerState& state) override;
  double flops(int64_t length) const override;
  int64_t query_width() const override { return width_ / config_.heads; }

 private:
  // keys and values [B, H, S, D], padding_mask [B, S] or undefined
  at::Tensor attend_memory(const at::Tensor& x, const at::Tensor& keys, const at::Tensor& values,
                           const at::Tensor& padding_mask);
  at::Tensor split_heads(const at::Tensor& x) const;  // [B, T, W] -> [B, H, T, D]
  at::Tensor merge_heads(const at::Tensor& x) const;  // [B, H, T, D] -> [B, T, W]
  double dropout() const { return is_training() ? config_.dropout : 0.0; }

  MixerConfig config_;
  double scale_;   // of the logits, 1 / sqrt(D) included
  int64_t width_;  // W
  Linear q_proj_{nullptr}, k_proj_{nullptr}, v_proj_{nullptr}, out_proj_{nullptr};
};

}  // namespace headloom

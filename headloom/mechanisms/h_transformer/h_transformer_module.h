#pragma once

#include "headloom/mechanisms/h_transformer/h_transformer.h"
#include "headloom/mechanisms/linear.h"
#include "headloom/mechanisms/query_key_source.h"
#include "headloom/mechanisms/registry.h"

namespace headloom {

// Multi-head hierarchical attention (h_transformer.h) with Q, K, V = x W for each of H heads of
// width D = C / H, and an output projection. Parameters q_proj, k_proj, v_proj, out_proj with
// weight [C, C] (and bias [C] when asked for), and relative_bias [H, 4R - 1]. Options of the
// recipe:
//   block_size (16): R, even, 2 to 256
//   query_mode ("coarse"): or "fine"
//   center_keys (false): without the mean of the keys; where causal, k_proj has no bias instead
//   relative_bias (true): a learned bias for each distance in groups, shared by the levels
//   bias (false): whether the projections have biases
//   init ("paper"): as the authors' code, normal with variance 1 / C cut at two deviations, biases
//     of distances with deviation 0.1; "xavier": as dot_product, distances at 0
// With init = "xavier", bias = true and relative_bias = false it has the parameters of dot_product,
// and up to 2R tokens it computes the same.
class HTransformerMixer : public TokenMixer, public QueryKeySource {
 public:
  HTransformerMixer(const MixerConfig& config, OptionReader& options);

  at::Tensor forward(const at::Tensor& x, const Masks& masks) override;
  // For a memory as long as x: the levels of both are laid on one another.
  at::Tensor cross(const at::Tensor& x, const at::Tensor& memory,
                   const at::Tensor& memory_padding_mask) override;
  // 2 R log2(T / R) rows of keys and values a head (h_transformer_decoding.h).
  std::unique_ptr<MixerState> new_state(int64_t batch) const override;
  at::Tensor step(const at::Tensor& x, MixerState& state) override;
  double flops(int64_t length) const override;
  int64_t query_width() const override { return config_.dim / config_.heads; }

 private:
  Linear projection(const char* name, bool bias, bool as_paper);
  at::Tensor split_heads(const at::Tensor& x) const;  // [B, T, C] -> [B, H, T, D]
  at::Tensor merge_heads(const at::Tensor& x) const;  // [B, H, T, D] -> [B, T, C]
  HAttentionOptions attention() const;

  MixerConfig config_;
  int64_t block_size_;
  std::string query_mode_;
  bool center_keys_;
  Linear q_proj_{nullptr}, k_proj_{nullptr}, v_proj_{nullptr}, out_proj_{nullptr};
  at::Tensor relative_bias_;  // [H, 4R - 1] or undefined
};

}  // namespace headloom

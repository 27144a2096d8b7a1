#pragma once

#include "headloom/mechanisms/linear.h"
#include "headloom/mechanisms/query_key_source.h"
#include "headloom/mechanisms/registry.h"
#include "headloom/mechanisms/talking_heads/talking_heads.h"

namespace headloom {

// Talking-heads attention of a Transformer: self (causal or not) and cross. K, H and V are the
// heads of keys, softmax and values, D and E the widths of a key and a value, C the model width.
//
// Parameters: q_proj.weight [K D, C], k_proj.weight [K D, C], v_proj.weight [V E, C],
// out_proj.weight [C, V E], their biases with option bias; logits_proj [K, H] and weights_proj
// [H, V], or in groups [g, K / g, H / g] and [g, H / g, V / g]; x2l.weight, m2l.weight [K H / g, C]
// and x2w.weight, m2w.weight [H V / g, C] for the dynamic projections asked for; relative_bias
// [H, buckets], not used across sequences.
//
// Initial values. "paper" follows the authors' code: normal numbers cut at two deviations, of
// variance 1 / (D C) for queries, which replaces the factor 1 / sqrt(D) of the logits, 1 / C for
// keys and values, 1 / (V E) for the output, 1 / K and 1 / H for the mixes, 0.01 / (K C) and
// 0.01 / (H C) for the dynamic projections. "identity" mixes by identity matrices, starts dynamic
// projections and the relative bias at 0 and the rest as dot_product does, so that the mixer equals
// plain attention and a trained model's weights can be loaded into it.
class TalkingHeadsMixer : public TokenMixer, public QueryKeySource {
 public:
  TalkingHeadsMixer(const MixerConfig& config, OptionReader& options);

  at::Tensor forward(const at::Tensor& x, const Masks& masks) override;
  at::Tensor cross(const at::Tensor& x, const at::Tensor& memory,
                   const at::Tensor& memory_padding_mask) override;
  std::unique_ptr<MixerState> new_state(int64_t batch) const override;
  at::Tensor step(const at::Tensor& x, MixerState& state) override;
  double flops(int64_t length) const override;
  int64_t query_width() const override { return key_width_; }

 private:
  struct Memory {
    at::Tensor k, v, m2l, m2w;  // the latter two undefined unless asked for
  };

  void read(OptionReader& options);
  void make_parameters();
  void initialise_as_paper();
  void initialise_as_identity();
  Linear dynamic(const char* name, int64_t in, int64_t out);
  std::vector<int64_t> mix_shape(int64_t in, int64_t out) const;

  Memory remember(const at::Tensor& memory);
  at::Tensor attend(const at::Tensor& x, const Memory& memory, TalkingHeadsOptions options,
                    const at::Tensor& query_padding = {});
  at::Tensor relative(int64_t queries, int64_t keys) const;
  double dropout() const { return is_training() ? config_.dropout : 0.0; }

  MixerConfig config_;
  int64_t key_heads_, value_heads_, key_width_, value_width_, groups_;
  bool bias_, folded_scale_;
  std::string init_, mixing_, dropout_site_, relative_kind_;
  std::vector<std::string> dynamic_;
  int64_t buckets_, max_distance_;
  Linear q_proj_{nullptr}, k_proj_{nullptr}, v_proj_{nullptr}, out_proj_{nullptr};
  Linear x2l_{nullptr}, m2l_{nullptr}, x2w_{nullptr}, m2w_{nullptr};
  at::Tensor logits_proj_, weights_proj_, relative_bias_;
};

// The bucket, in [0, buckets), of key positions minus query positions (Raffel et al., 2020, T5):
// one a distance up to half the buckets of a direction, then logarithmic up to max_distance. With
// `causal` keys after the query share the bucket of distance 0, else they have half of the buckets.
at::Tensor t5_buckets(const at::Tensor& relative_position, bool causal, int64_t buckets,
                      int64_t max_distance);

}  // namespace headloom

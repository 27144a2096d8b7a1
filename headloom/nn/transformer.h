#pragma once

#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>

#include <memory>
#include <string>
#include <vector>

#include "headloom/base/options.h"
#include "headloom/mechanisms/token_mixer.h"

// B batch, T tokens, n new tokens, C model width.
namespace headloom::nn {

struct TransformerConfig {
  int64_t vocabulary = 0;  // token ids 0 .. vocabulary - 1
  int64_t dim = 128;       // C
  int64_t layers = 4;
  int64_t heads = 4;                  // divides dim
  int64_t ffn = 512;                  // hidden width of the feed-forward part
  std::string norm = "pre";           // "pre" (with a final norm) or "post" (Vaswani et al., 2017)
  std::string positions = "learned";  // "learned", "sinusoidal" or "none"
  int64_t max_length =
      1024;  // longest sequence; bounds learned positions, sizes the sinusoidal table
  std::string activation = "gelu";  // "gelu" or "relu"
  double dropout = 0.0;             // after embedding, each mixer and each feed-forward part
  double mixing_dropout = 0.0;      // on the mixing weights
  bool causal = false;
  std::string mixer = "dot_product";  // a name of mechanisms/registry.h
  Options mixer_options;
};

// Refuses impossible values, each by name.
void check_config(const TransformerConfig& config);

// x + dropout(mixer(norm(x))), then x + dropout(ffn(norm(x))); or the post-norm order. One state
// serves decoding.
class TransformerBlock : public torch::nn::Module {
 public:
  TransformerBlock(const TransformerConfig& config, int64_t layer);
  at::Tensor forward(const at::Tensor& x, const Masks& masks);  // [B, T, C] -> [B, T, C]
  at::Tensor step(const at::Tensor& x, MixerState& state);      // [B, n, C] -> [B, n, C]
  const TokenMixer& mixer() const { return *mixer_; }

 private:
  template <class Mix>
  at::Tensor apply(const at::Tensor& x, const Mix& mix);

  bool pre_norm_;
  std::string activation_;
  double dropout_;
  std::shared_ptr<TokenMixer> mixer_;
  torch::nn::LayerNorm mixer_norm_{nullptr}, ffn_norm_{nullptr};
  torch::nn::Linear ffn_in_{nullptr}, ffn_out_{nullptr};
};

// The states of all blocks and the position reached.
struct DecoderState {
  std::vector<std::unique_ptr<MixerState>> layers;
  int64_t position = 0;
  void reorder(const at::Tensor& index);  // beam search: row i continues as row index[i]
  int64_t bytes() const;
};

// Embedding, positions and blocks. An encoder when the configuration is not causal, a decoder-only
// stack when it is.
class Transformer : public torch::nn::Module {
 public:
  explicit Transformer(const TransformerConfig& config);

  // tokens [B, T] int64 -> [B, T, C]. Refuses T > max_length. In a packed batch (masks.cu_seqlens)
  // positions start again at every boundary.
  at::Tensor forward(const at::Tensor& tokens, const Masks& masks = {});
  // The last norm is applied to the whole output; callers add their head.

  DecoderState new_state(int64_t batch) const;
  // tokens [B, n] -> [B, n, C]; steps over the pieces of a sequence equal forward() on the whole.
  at::Tensor step(const at::Tensor& tokens, DecoderState& state);

  const TransformerConfig& config() const { return config_; }
  const torch::nn::Embedding& embedding() const { return embedding_; }
  // Operations (multiply-adds counted twice) of one forward pass over one sequence.
  double flops(int64_t length) const;

 private:
  at::Tensor embed(const at::Tensor& tokens, const at::Tensor& positions);

  TransformerConfig config_;
  torch::nn::Embedding embedding_{nullptr};
  at::Tensor position_table_;  // [max_length, C]: parameter if learned, buffer if sinusoidal
  std::vector<std::shared_ptr<TransformerBlock>> blocks_;
  torch::nn::LayerNorm final_norm_{nullptr};  // pre-norm only
};

}  // namespace headloom::nn

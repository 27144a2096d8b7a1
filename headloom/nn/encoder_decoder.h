#pragma once

#include <torch/nn/modules/embedding.h>

#include <string>
#include <vector>

#include "headloom/mechanisms/linear.h"
#include "headloom/nn/decoder_state.h"
#include "headloom/nn/transformer_block.h"

// B batch, S source tokens, T target tokens, n new tokens, C model width, V target vocabulary.
namespace headloom::nn {

struct EncoderDecoderConfig {
  int64_t source_vocabulary = 0, target_vocabulary = 0;
  int64_t dim = 512;   // C
  int64_t ffn = 2048;  // hidden width of the feed-forward parts
  int64_t encoder_layers = 6, decoder_layers = 6;
  std::string norm = "post";             // "post" or "pre" (with final norms)
  std::string positions = "sinusoidal";  // "sinusoidal", "learned" or "none"
  int64_t max_length = 1024;             // longest sequence on either side
  std::string norm_type = "layer";       // "layer" or "rms" (norm.h), all norms
  double norm_eps = 1e-5;                // of all norms
  std::string activation = "relu";       // "relu", "gelu" or "gated_gelu" (transformer_block.h)
  double dropout = 0.1;                  // after embeddings, each mixer and each feed-forward part
  double ffn_dropout = 0.0;              // after the activation
  bool share_embeddings = false;  // one table for source and target: the vocabularies are equal
  bool tie_output = true;         // the output projection is the target's embedding
  MixerChoice encoder_mixer, decoder_mixer, cross_mixer;
};

// Refuses impossible values, each by name, and unknown mixers.
void check_config(const EncoderDecoderConfig& config);

// The encoder-decoder Transformer (Vaswani et al., 2017, section 3) of any mechanisms: encoder
// blocks mix the source in both directions, decoder blocks mix the target causally and then look at
// the encoder's output through `cross_mixer`, which must have a cross form.
//
// Inputs are embeddings times sqrt(C) plus positions. Source positions count the tokens that are
// not padding, so that padding on either side changes nothing; target positions count columns.
//
// Parameters source_embedding.weight, target_embedding.weight [V, C] (absent when shared),
// source_positions and target_positions [max_length, C] (learned; buffers when sinusoidal),
// encoder.<i>.*, decoder.<i>.* (transformer_block.h), encoder_norm.* and decoder_norm.* when
// pre-norm, output.weight [V, C] when not tied. Initial values as in transformer.h, with 3 terms a
// decoder block; embeddings, learned positions and output are N(0, 1 / sqrt(C)).
class EncoderDecoder : public torch::nn::Module {
 public:
  explicit EncoderDecoder(const EncoderDecoderConfig& config);

  // source [B, S] int64, source_padding_mask [B, S] bool, true at padding, or undefined.
  Memory encode(const at::Tensor& source, const at::Tensor& source_padding_mask = {});
  // target [B, T] -> logits [B, T, V]; those of position t follow from tokens 0 .. t. A causal
  // decoder needs no target mask when padding comes last.
  at::Tensor decode(const at::Tensor& target, const Memory& memory,
                    const at::Tensor& target_padding_mask = {});
  at::Tensor forward(const at::Tensor& source, const at::Tensor& target,
                     const at::Tensor& source_padding_mask = {},
                     const at::Tensor& target_padding_mask = {});

  // Decoding. What cross mixers need of the memory is made once; DecoderState::reorder() moves it
  // with the rest.
  DecoderState new_state(const Memory& memory);
  // tokens [B, n] -> logits [B, n, V], n >= 0; without dropout, steps over the pieces of a target
  // equal decode() on the whole. Refuses to pass max_length and another batch than the state's.
  at::Tensor step(const at::Tensor& tokens, DecoderState& state);
  // A step that projects the last new token alone: [B, n] -> [B, V], n >= 1.
  at::Tensor next_logits(const at::Tensor& tokens, DecoderState& state);

  // The same without a state, from whole targets: [B, T], T >= 1 -> [B, V].
  at::Tensor next_logits(const at::Tensor& target, const Memory& memory);

  // Operations (multiply-adds counted twice) of one forward pass over a source and a target of
  // `length`.
  double flops(int64_t length) const;
  const EncoderDecoderConfig& config() const { return config_; }

 private:
  using Blocks = std::vector<std::shared_ptr<TransformerBlock>>;
  Blocks make_blocks(const char* name, bool decoder);
  at::Tensor make_positions(const char* name);
  at::Tensor embed(const at::Tensor& weight, const at::Tensor& tokens, const at::Tensor& positions);
  const at::Tensor& target_weight() const;
  // -> [B, T, C]
  at::Tensor hidden(const at::Tensor& target, const Memory& memory,
                    const at::Tensor& target_padding_mask);
  at::Tensor hidden_step(const at::Tensor& tokens, DecoderState& state);  // -> [B, n, C]
  at::Tensor project(const at::Tensor& hidden) const;                     // [..., C] -> [..., V]

  EncoderDecoderConfig config_;
  torch::nn::Embedding source_embedding_{nullptr}, target_embedding_{nullptr};
  at::Tensor source_positions_, target_positions_;  // undefined when positions are "none"
  Blocks encoder_, decoder_;
  Norm encoder_norm_{nullptr}, decoder_norm_{nullptr};  // pre-norm only
  Linear output_{nullptr};                              // absent when tied
};

}  // namespace headloom::nn

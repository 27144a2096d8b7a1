#include "headloom/nn/encoder_decoder.h"

#include <ATen/ATen.h>
#include <torch/nn/init.h>
#include <torch/nn/modules/container/modulelist.h>

#include <cmath>

#include "headloom/base/check.h"
#include "headloom/mechanisms/dropout.h"
#include "headloom/nn/tokens.h"

namespace headloom::nn {
namespace {

using at::Tensor;

constexpr const char* kWhere = "encoder-decoder";

double deviation(const EncoderDecoderConfig& config) {
  return 1.0 / std::sqrt(static_cast<double>(config.dim));
}

void check_mask(const char* name, const Tensor& mask, const Tensor& tokens) {
  HEADLOOM_CHECK(
      !mask.defined() || (mask.sizes() == tokens.sizes() && mask.scalar_type() == at::kBool),
      kWhere, cat(name, " of shape ", tokens.sizes(), " and dtype bool"),
      cat("shape ", mask.sizes(), ", ", mask.scalar_type()));
}

// The number of tokens before each that are not padding. [B, T] bool -> [B, T] int64
Tensor count_tokens(const Tensor& padding_mask) {
  return padding_mask.logical_not().cumsum(1).sub_(1).clamp_min_(0);
}

}  // namespace

EncoderDecoder::EncoderDecoder(const EncoderDecoderConfig& config) : config_(config) {
  check_config(config);
  const auto embedding = [&](const char* name, int64_t vocabulary) {
    auto made = register_module(name, torch::nn::Embedding(vocabulary, config.dim));
    torch::nn::init::normal_(made->weight, 0.0, deviation(config));
    return made;
  };
  source_embedding_ = embedding("source_embedding", config.source_vocabulary);
  if (!config.share_embeddings) {
    target_embedding_ = embedding("target_embedding", config.target_vocabulary);
  }
  source_positions_ = make_positions("source_positions");
  target_positions_ = make_positions("target_positions");
  encoder_ = make_blocks("encoder", /*decoder=*/false);
  decoder_ = make_blocks("decoder", /*decoder=*/true);
  if (config.norm == "pre") {
    const auto norm = [&](const char* name) {
      return register_module(name, Norm(config.norm_type, config.dim, config.norm_eps));
    };
    encoder_norm_ = norm("encoder_norm");
    decoder_norm_ = norm("decoder_norm");
  }
  if (!config.tie_output) {
    output_ = register_module(
        "output",
        Linear(torch::nn::LinearOptions(config.dim, config.target_vocabulary).bias(false)));
    torch::nn::init::normal_(output_->weight, 0.0, deviation(config));
  }
}

EncoderDecoder::Blocks EncoderDecoder::make_blocks(const char* name, bool decoder) {
  BlockConfig block;
  block.dim = config_.dim;
  block.ffn = config_.ffn;
  block.norm = config_.norm;
  block.norm_type = config_.norm_type;
  block.norm_eps = config_.norm_eps;
  block.activation = config_.activation;
  block.dropout = config_.dropout;
  block.ffn_dropout = config_.ffn_dropout;
  block.layers = decoder ? config_.decoder_layers : config_.encoder_layers;
  block.causal = decoder;
  block.mixer = decoder ? config_.decoder_mixer : config_.encoder_mixer;
  if (decoder) block.cross = config_.cross_mixer;
  Blocks blocks;
  const auto list = register_module(name, std::make_shared<torch::nn::ModuleListImpl>());
  for (block.layer = 0; block.layer < block.layers; ++block.layer) {
    blocks.push_back(std::make_shared<TransformerBlock>(block));
    list->push_back(blocks.back());
  }
  return blocks;
}

Tensor EncoderDecoder::make_positions(const char* name) {
  if (config_.positions == "sinusoidal") {
    return register_buffer(name, sinusoidal_table(config_.max_length, config_.dim));
  }
  if (config_.positions == "none") return {};
  const Tensor table = register_parameter(name, at::empty({config_.max_length, config_.dim}));
  torch::nn::init::normal_(table, 0.0, deviation(config_));
  return table;
}

const Tensor& EncoderDecoder::target_weight() const {
  return target_embedding_ ? target_embedding_->weight : source_embedding_->weight;
}

// tokens [B, T], positions [T, C], [B, T, C] or undefined -> [B, T, C]
Tensor EncoderDecoder::embed(const Tensor& weight, const Tensor& tokens, const Tensor& positions) {
  Tensor x = at::embedding(weight, tokens) * std::sqrt(static_cast<double>(config_.dim));
  if (positions.defined()) x = x + positions;
  return headloom::dropout(x, config_.dropout, is_training());
}

Tensor EncoderDecoder::project(const Tensor& hidden) const {
  return headloom::linear(hidden, output_ ? output_->weight : target_weight());
}

Memory EncoderDecoder::encode(const Tensor& source, const Tensor& source_padding_mask) {
  check_tokens(kWhere, source, config_.source_vocabulary);
  check_mask("source_padding_mask", source_padding_mask, source);
  check_length(kWhere, source.size(1), config_.max_length, cat(source.size(1), " tokens"));
  Tensor positions;
  if (source_positions_.defined()) {
    positions = source_padding_mask.defined()
                    ? at::embedding(source_positions_, count_tokens(source_padding_mask))
                    : source_positions_.narrow(0, 0, source.size(1));
  }
  Masks masks;
  masks.key_padding_mask = source_padding_mask;
  Tensor x = embed(source_embedding_->weight, source, positions);
  for (const auto& block : encoder_) x = block->forward(x, masks);
  return {encoder_norm_ ? encoder_norm_(x) : x, source_padding_mask};
}

Tensor EncoderDecoder::hidden(const Tensor& target, const Memory& memory,
                              const Tensor& target_padding_mask) {
  check_tokens(kWhere, target, config_.target_vocabulary);
  check_mask("target_padding_mask", target_padding_mask, target);
  check_length(kWhere, target.size(1), config_.max_length, cat(target.size(1), " tokens"));
  HEADLOOM_CHECK(target.size(0) == memory.states.size(0), kWhere,
                 cat("targets of the ", memory.states.size(0), " rows of the memory"),
                 cat("shape ", target.sizes()));
  Masks masks;
  masks.key_padding_mask = target_padding_mask;
  const Tensor positions =
      target_positions_.defined() ? target_positions_.narrow(0, 0, target.size(1)) : Tensor();
  Tensor x = embed(target_weight(), target, positions);
  for (const auto& block : decoder_) x = block->forward(x, masks, memory);
  return decoder_norm_ ? decoder_norm_(x) : x;
}

Tensor EncoderDecoder::decode(const Tensor& target, const Memory& memory,
                              const Tensor& target_padding_mask) {
  return project(hidden(target, memory, target_padding_mask));
}

Tensor EncoderDecoder::forward(const Tensor& source, const Tensor& target,
                               const Tensor& source_padding_mask,
                               const Tensor& target_padding_mask) {
  return decode(target, encode(source, source_padding_mask), target_padding_mask);
}

DecoderState EncoderDecoder::new_state(const Memory& memory) {
  DecoderState state;
  state.batch = memory.states.size(0);
  for (const auto& block : decoder_) {
    state.layers.push_back(block->mixer().new_state(state.batch));
    state.memories.push_back(block->new_cross_state(memory));
  }
  return state;
}

Tensor EncoderDecoder::hidden_step(const Tensor& tokens, DecoderState& state) {
  check_tokens(kWhere, tokens, config_.target_vocabulary);
  const int64_t count = tokens.size(1);
  HEADLOOM_CHECK(state.layers.size() == decoder_.size() && state.memories.size() == decoder_.size(),
                 kWhere, cat("a state of ", decoder_.size(), " layers, as new_state() makes"),
                 cat(state.layers.size(), " layers, ", state.memories.size(), " memories"));
  HEADLOOM_CHECK(tokens.size(0) == state.batch, kWhere,
                 cat("tokens of the ", state.batch, " rows of the state"),
                 cat("shape ", tokens.sizes()));
  check_length(kWhere, state.position + count, config_.max_length,
               cat(state.position, " tokens seen and ", count, " new ones"));
  const Tensor positions =
      target_positions_.defined() ? target_positions_.narrow(0, state.position, count) : Tensor();
  Tensor x = embed(target_weight(), tokens, positions);
  if (count == 0) return x;
  for (size_t i = 0; i < decoder_.size(); ++i) {
    x = decoder_[i]->step(x, *state.layers[i], *state.memories[i]);
  }
  state.position += count;
  return decoder_norm_ ? decoder_norm_(x) : x;
}

Tensor EncoderDecoder::step(const Tensor& tokens, DecoderState& state) {
  return project(hidden_step(tokens, state));
}

Tensor EncoderDecoder::next_logits(const Tensor& tokens, DecoderState& state) {
  HEADLOOM_CHECK(tokens.dim() == 2 && tokens.size(1) >= 1, kWhere,
                 "tokens of shape [B, n], n at least 1", cat("shape ", tokens.sizes()));
  return project(hidden_step(tokens, state).select(1, tokens.size(1) - 1));
}

Tensor EncoderDecoder::next_logits(const Tensor& target, const Memory& memory) {
  HEADLOOM_CHECK(target.dim() == 2 && target.size(1) >= 1, kWhere,
                 "a target of shape [B, T], T at least 1", cat("shape ", target.sizes()));
  return project(hidden(target, memory, {}).select(1, target.size(1) - 1));
}

double EncoderDecoder::flops(int64_t length) const {
  double total = 2.0 * static_cast<double>(length) * static_cast<double>(config_.dim) *
                 static_cast<double>(config_.target_vocabulary);
  for (const auto& block : encoder_) total += block->flops(length);
  for (const auto& block : decoder_) total += block->flops(length);
  return total;
}

}  // namespace headloom::nn

#include "headloom/nn/transformer.h"

#include <ATen/ATen.h>
#include <torch/nn/init.h>
#include <torch/nn/modules/container/modulelist.h>

#include <cmath>

#include "headloom/base/check.h"
#include "headloom/mechanisms/dropout.h"
#include "headloom/nn/tokens.h"
#include "headloom/tensor/contract.h"

namespace headloom::nn {
namespace {

using at::Tensor;

constexpr const char* kWhere = "transformer";
// Of embeddings and learned positions, as in GPT and BERT.
constexpr double kEmbeddingDeviation = 0.02;

BlockConfig block_config(const TransformerConfig& config, int64_t layer) {
  BlockConfig block;
  block.dim = config.dim;
  block.ffn = config.ffn;
  block.norm = config.norm;
  block.norm_type = config.norm_type;
  block.activation = config.activation;
  block.dropout = config.dropout;
  block.layer = layer;
  block.layers = config.layers;
  block.norm_eps = config.norm_eps;
  block.causal = config.causal;
  block.mixer = {config.mixer, config.heads, config.mixing_dropout, config.mixer_options};
  return block;
}

}  // namespace

Transformer::Transformer(const TransformerConfig& config) : config_(config) {
  check_config(config);
  const bool sinusoidal = config.positions == "sinusoidal";
  embedding_ = register_module("embedding", torch::nn::Embedding(config.vocabulary, config.dim));
  torch::nn::init::normal_(
      embedding_->weight, 0.0,
      sinusoidal ? 1.0 / std::sqrt(static_cast<double>(config.dim)) : kEmbeddingDeviation);
  if (sinusoidal) {
    position_table_ = register_buffer("positions", sinusoidal_table(config.max_length, config.dim));
  } else if (config.positions == "learned") {
    position_table_ = register_parameter("positions", at::empty({config.max_length, config.dim}));
    torch::nn::init::normal_(position_table_, 0.0, kEmbeddingDeviation);
  }
  if (config.segments > 0) {
    segment_table_ = register_parameter("segments", at::empty({config.segments, config.dim}));
    torch::nn::init::normal_(segment_table_, 0.0, kEmbeddingDeviation);
  }
  if (config.embedding_norm) {
    embedding_norm_ =
        register_module("embedding_norm", Norm(config.norm_type, config.dim, config.norm_eps));
  }
  const auto list = register_module("blocks", std::make_shared<torch::nn::ModuleListImpl>());
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    blocks_.push_back(std::make_shared<TransformerBlock>(block_config(config, layer)));
    list->push_back(blocks_.back());
  }
  if (config.norm == "pre") {
    final_norm_ =
        register_module("final_norm", Norm(config.norm_type, config.dim, config.norm_eps));
  }
}

// [count, C], or undefined when positions are "none".
Tensor Transformer::position_rows(int64_t begin, int64_t count) const {
  return position_table_.defined() ? position_table_.narrow(0, begin, count) : Tensor();
}

// rows [B, T, C] -> [T, C], or undefined when positions are "none"; checks the lengths in any case.
Tensor Transformer::forward_positions(const Tensor& rows, const Masks& masks) const {
  const int64_t total = rows.size(1);
  if (!masks.cu_seqlens.defined()) {
    check_length(kWhere, total, config_.max_length, cat(total, " tokens"));
    return position_rows(0, total);
  }
  Contract(kWhere)
      .boundaries("cu_seqlens", masks.cu_seqlens)
      .require(rows.size(0) == 1, "B = 1 with cu_seqlens", cat("B = ", rows.size(0)),
               "Concatenate the sequences along time.");
  const auto bounds = read_boundaries(kWhere, "cu_seqlens", masks.cu_seqlens, total);
  std::vector<int64_t> places;
  places.reserve(total);
  for (size_t s = 0; s + 1 < bounds.size(); ++s) {
    const int64_t length = bounds[s + 1] - bounds[s];
    check_length(kWhere, length, config_.max_length, cat(length, " tokens in packed sequence ", s));
    for (int64_t t = 0; t < length; ++t) places.push_back(t);
  }
  if (!position_table_.defined()) return {};
  return position_table_.index_select(0, at::tensor(places, at::kLong).to(rows.device()));
}

// rows of the embedding [B, T, C], positions [T, C] or undefined, kinds [B, T] or undefined
// -> [B, T, C]
Tensor Transformer::place(Tensor x, const Tensor& positions, const Tensor& kinds) {
  if (config_.positions == "sinusoidal") x = x * std::sqrt(static_cast<double>(config_.dim));
  if (positions.defined()) x = x + positions;
  if (segment_table_.defined()) {
    if (kinds.defined()) check_tokens("transformer segments", kinds, config_.segments);
    x = x + (kinds.defined() ? at::embedding(segment_table_, kinds) : segment_table_[0]);
  }
  if (embedding_norm_) x = embedding_norm_(x);
  return headloom::dropout(x, config_.dropout, is_training());
}

Tensor Transformer::finish(const Tensor& x) {
  return final_norm_ ? final_norm_(x) : x;
}

Tensor Transformer::forward(const Tensor& tokens, const Masks& masks, const Tensor& kinds) {
  check_tokens(kWhere, tokens, config_.vocabulary);
  return forward_rows(embedding_(tokens), masks, kinds);
}

Tensor Transformer::forward_rows(const Tensor& rows, const Masks& masks, const Tensor& kinds) {
  HEADLOOM_CHECK(rows.dim() == 3 && rows.size(2) == config_.dim, kWhere,
                 cat("rows of the embedding [B, T, ", config_.dim, "]"),
                 cat("shape ", rows.sizes()));
  Tensor x = place(rows, forward_positions(rows, masks), kinds);
  for (const auto& block : blocks_) x = block->forward(x, masks);
  return finish(x);
}

DecoderState Transformer::new_state(int64_t batch) const {
  HEADLOOM_CHECK(config_.causal, kWhere, "a causal model to decode with", "a bidirectional one",
                 "Build it with causal = true.");
  HEADLOOM_CHECK(batch >= 0, kWhere, "a batch of at least 0", cat(batch));
  DecoderState state;
  state.batch = batch;
  for (const auto& block : blocks_) state.layers.push_back(block->mixer().new_state(batch));
  return state;
}

Tensor Transformer::step(const Tensor& tokens, DecoderState& state) {
  check_tokens(kWhere, tokens, config_.vocabulary);
  const int64_t count = tokens.size(1);
  HEADLOOM_CHECK(state.layers.size() == blocks_.size(), kWhere,
                 cat("a state of ", blocks_.size(), " layers, as new_state() makes"),
                 cat(state.layers.size(), " layers"));
  HEADLOOM_CHECK(tokens.size(0) == state.batch, kWhere,
                 cat("tokens of the ", state.batch, " rows of the state"),
                 cat("shape ", tokens.sizes()));
  check_length(kWhere, state.position + count, config_.max_length,
               cat(state.position, " tokens seen and ", count, " new ones"));
  Tensor x = place(embedding_(tokens), position_rows(state.position, count), {});
  if (count == 0) return x;
  for (size_t i = 0; i < blocks_.size(); ++i) x = blocks_[i]->step(x, *state.layers[i]);
  state.position += count;
  return finish(x);
}

double Transformer::flops(int64_t length) const {
  double total = 0.0;
  for (const auto& block : blocks_) total += block->flops(length);
  return total;
}

}  // namespace headloom::nn

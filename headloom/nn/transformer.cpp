#include "headloom/nn/transformer.h"

#include <ATen/ATen.h>
#include <torch/nn/init.h>
#include <torch/nn/modules/container/modulelist.h>

#include <cmath>

#include "headloom/base/check.h"
#include "headloom/tensor/contract.h"

namespace headloom::nn {
namespace {

using at::Tensor;

constexpr const char* kWhere = "transformer";
// Of embeddings and learned positions, as in GPT and BERT.
constexpr double kEmbeddingDeviation = 0.02;

// Vaswani et al. (2017), section 3.5: PE(t, 2i) = sin(t / 10000^(2i / C)), PE(t, 2i + 1) = the
// cosine of the same angle. In float64, then rounded once. -> [max_length, C]
Tensor sinusoidal_table(int64_t max_length, int64_t dim) {
  const Tensor table = at::empty({max_length, dim}, at::kDouble);
  auto values = table.accessor<double, 2>();
  for (int64_t channel = 0; channel < dim; ++channel) {
    const int64_t even = channel - channel % 2;
    const double rate = std::pow(10000.0, -static_cast<double>(even) / static_cast<double>(dim));
    for (int64_t t = 0; t < max_length; ++t) {
      const double angle = static_cast<double>(t) * rate;
      values[t][channel] = channel == even ? std::sin(angle) : std::cos(angle);
    }
  }
  return table.to(at::typeMetaToScalarType(at::get_default_dtype()));
}

void check_length(int64_t longest, int64_t max_length, const std::string& found) {
  HEADLOOM_CHECK(longest <= max_length, kWhere,
                 cat("sequences of at most max_length = ", max_length, " tokens"), found,
                 "Cut the sequence, or build the model with a larger max_length.");
}

}  // namespace

void DecoderState::reorder(const Tensor& index) {
  HEADLOOM_CHECK(index.defined() && index.dim() == 1 && index.scalar_type() == at::kLong,
                 "decoder state", "index of shape [B'] and dtype int64",
                 index.defined() ? cat("shape ", index.sizes(), ", ", index.scalar_type())
                                 : std::string("none"));
  if (index.numel() > 0 && index.device().is_cpu()) {
    const auto [low, high] = index.aminmax();
    HEADLOOM_CHECK(low.item<int64_t>() >= 0 && high.item<int64_t>() < batch, "decoder state",
                   cat("rows in [0, ", batch, ")"),
                   cat("rows from ", low.item<int64_t>(), " to ", high.item<int64_t>()));
  }
  for (const auto& layer : layers) layer->reorder(index);
  batch = index.size(0);
}

int64_t DecoderState::bytes() const {
  int64_t total = 0;
  for (const auto& layer : layers) total += layer->bytes();
  return total;
}

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
  const auto list = register_module("blocks", std::make_shared<torch::nn::ModuleListImpl>());
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    blocks_.push_back(std::make_shared<TransformerBlock>(config, layer));
    list->push_back(blocks_.back());
  }
  if (config.norm == "pre") {
    final_norm_ = register_module("final_norm",
                                  torch::nn::LayerNorm(torch::nn::LayerNormOptions({config.dim})));
  }
}

void Transformer::check_tokens(const Tensor& tokens) const {
  HEADLOOM_CHECK(tokens.defined() && tokens.dim() == 2 && tokens.scalar_type() == at::kLong, kWhere,
                 "tokens of shape [B, T] and dtype int64",
                 tokens.defined() ? cat("shape ", tokens.sizes(), ", ", tokens.scalar_type())
                                  : std::string("none"));
  // Elsewhere than on the processor, reading the values would wait for the device.
  if (tokens.numel() == 0 || !tokens.device().is_cpu()) return;
  const auto [low, high] = tokens.aminmax();
  const int64_t smallest = low.item<int64_t>(), largest = high.item<int64_t>();
  HEADLOOM_CHECK(smallest >= 0 && largest < config_.vocabulary, kWhere,
                 cat("token ids in [0, ", config_.vocabulary, ")"),
                 cat("token id ", smallest < 0 ? smallest : largest));
}

// [count, C], or undefined when positions are "none".
Tensor Transformer::position_rows(int64_t begin, int64_t count) const {
  return position_table_.defined() ? position_table_.narrow(0, begin, count) : Tensor();
}

// [T, C], or undefined when positions are "none"; checks the lengths in any case.
Tensor Transformer::forward_positions(const Tensor& tokens, const Masks& masks) const {
  const int64_t total = tokens.size(1);
  if (!masks.cu_seqlens.defined()) {
    check_length(total, config_.max_length, cat(total, " tokens"));
    return position_rows(0, total);
  }
  Contract(kWhere)
      .boundaries("cu_seqlens", masks.cu_seqlens)
      .require(tokens.size(0) == 1, "B = 1 with cu_seqlens", cat("B = ", tokens.size(0)),
               "Concatenate the sequences along time.");
  const auto bounds = read_boundaries(kWhere, "cu_seqlens", masks.cu_seqlens, total);
  std::vector<int64_t> rows;
  rows.reserve(total);
  for (size_t s = 0; s + 1 < bounds.size(); ++s) {
    const int64_t length = bounds[s + 1] - bounds[s];
    check_length(length, config_.max_length, cat(length, " tokens in packed sequence ", s));
    for (int64_t t = 0; t < length; ++t) rows.push_back(t);
  }
  if (!position_table_.defined()) return {};
  return position_table_.index_select(0, at::tensor(rows, at::kLong).to(tokens.device()));
}

// tokens [B, T], positions [T, C] or undefined -> [B, T, C]
Tensor Transformer::embed(const Tensor& tokens, const Tensor& positions) {
  Tensor x = embedding_(tokens);
  if (config_.positions == "sinusoidal") x = x * std::sqrt(static_cast<double>(config_.dim));
  if (positions.defined()) x = x + positions;
  return torch::dropout(x, config_.dropout, is_training());
}

Tensor Transformer::finish(const Tensor& x) {
  return final_norm_ ? final_norm_(x) : x;
}

Tensor Transformer::forward(const Tensor& tokens, const Masks& masks) {
  check_tokens(tokens);
  Tensor x = embed(tokens, forward_positions(tokens, masks));
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
  check_tokens(tokens);
  const int64_t count = tokens.size(1);
  HEADLOOM_CHECK(state.layers.size() == blocks_.size(), kWhere,
                 cat("a state of ", blocks_.size(), " layers, as new_state() makes"),
                 cat(state.layers.size(), " layers"));
  HEADLOOM_CHECK(tokens.size(0) == state.batch, kWhere,
                 cat("tokens of the ", state.batch, " rows of the state"),
                 cat("shape ", tokens.sizes()));
  check_length(state.position + count, config_.max_length,
               cat(state.position, " tokens seen and ", count, " new ones"));
  Tensor x = embed(tokens, position_rows(state.position, count));
  if (count == 0) return x;
  for (size_t i = 0; i < blocks_.size(); ++i) x = blocks_[i]->step(x, *state.layers[i]);
  state.position += count;
  return finish(x);
}

double Transformer::flops(int64_t length) const {
  const double feed_forward = 4.0 * static_cast<double>(length) * static_cast<double>(config_.dim) *
                              static_cast<double>(config_.ffn);
  double total = 0.0;
  for (const auto& block : blocks_) total += block->mixer().flops(length) + feed_forward;
  return total;
}

}  // namespace headloom::nn

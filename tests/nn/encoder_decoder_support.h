#pragma once

#include "headloom/nn/encoder_decoder.h"
#include "tests/nn/nn_support.h"

namespace headloom::nn {

inline EncoderDecoderConfig small_translator() {
  EncoderDecoderConfig config;
  config.source_vocabulary = 13;
  config.target_vocabulary = 11;
  config.dim = 16;
  config.ffn = 24;
  config.encoder_layers = 2;
  config.decoder_layers = 3;
  config.max_length = 32;
  config.dropout = 0.0;
  config.encoder_mixer.heads = config.decoder_mixer.heads = config.cross_mixer.heads = 2;
  return config;
}

// The bound of nn_support.h for as many layers as a target token passes through.
inline TransformerConfig depth_of(const EncoderDecoderConfig& config) {
  TransformerConfig depth;
  depth.layers = config.encoder_layers + 2 * config.decoder_layers;
  depth.dim = config.dim;
  depth.ffn = config.ffn;
  return depth;
}

struct BuiltTranslator {
  std::shared_ptr<EncoderDecoder> model;
  std::string refusal;
};

// In float64 and evaluation mode with no parameter at 0 or 1, or why a mechanism refuses its form.
inline BuiltTranslator build_translator(const EncoderDecoderConfig& config) {
  at::manual_seed(5);
  try {
    auto model = std::make_shared<EncoderDecoder>(config);
    model->to(at::kDouble);
    model->eval();
    const torch::NoGradGuard no_grad;
    for (at::Tensor& parameter : model->parameters())
      parameter.add_(at::randn_like(parameter), 0.1);
    return {model, ""};
  } catch (const Error& error) {
    return {nullptr, error.what()};
  }
}

inline at::Tensor mask_of(const std::vector<std::string>& rows) {  // 'x' is padding
  const at::Tensor mask = at::zeros(
      {static_cast<int64_t>(rows.size()), static_cast<int64_t>(rows[0].size())}, at::kBool);
  for (size_t b = 0; b < rows.size(); ++b) {
    for (size_t t = 0; t < rows[b].size(); ++t) mask[b][t].fill_(rows[b][t] == 'x');
  }
  return mask;
}

}  // namespace headloom::nn

#include "headloom/tasks/encoder_decoder_model.h"

#include <ATen/ATen.h>

#include "headloom/base/check.h"

namespace headloom::tasks {
namespace {

using at::Tensor;

nn::MixerChoice choice_of(const nn::TransformerConfig& model, const NamedMixer& stated,
                          const NamedMixer& otherwise) {
  const NamedMixer& chosen = stated.name.empty() ? otherwise : stated;
  nn::MixerChoice choice;
  choice.name = chosen.name;
  choice.options = chosen.options;
  choice.heads = model.heads;
  choice.dropout = model.mixing_dropout;
  return choice;
}

}  // namespace

nn::EncoderDecoderConfig encoder_decoder_config(const nn::TransformerConfig& model,
                                                const EncoderDecoderParts& parts) {
  nn::EncoderDecoderConfig config;
  config.dim = model.dim;
  config.ffn = model.ffn;
  config.encoder_layers = model.layers;
  config.decoder_layers = parts.decoder_layers == 0 ? model.layers : parts.decoder_layers;
  config.norm = model.norm;
  config.norm_type = model.norm_type;
  config.norm_eps = model.norm_eps;
  config.positions = model.positions;
  config.max_length = model.max_length;
  config.activation = model.activation;
  config.dropout = model.dropout;
  config.ffn_dropout = parts.ffn_dropout;
  const NamedMixer self{model.mixer, model.mixer_options}, attention{"dot_product", {}};
  config.encoder_mixer = choice_of(model, parts.encoder_mixer, self);
  config.decoder_mixer = choice_of(model, parts.decoder_mixer, self);
  config.cross_mixer = choice_of(model, parts.cross_mixer, attention);
  return config;
}

EncoderDecoderModel::EncoderDecoderModel(const nn::EncoderDecoderConfig& config)
    : model_(register_module("model", std::make_shared<nn::EncoderDecoder>(config))) {}

// Every source meets every choice: row b K + k of the decoder is choice k after source b.
Tensor EncoderDecoderModel::score_choices(const Batch& batch) {
  const int64_t sources = batch.tokens.size(0), choices = batch.choices.size(0);
  nn::Memory memory = model_->encode(batch.tokens, batch.masks.key_padding_mask);
  for (Tensor* part : {&memory.states, &memory.padding_mask}) {
    if (part->defined()) *part = part->repeat_interleave(choices, 0);
  }
  const Tensor logits =
      model_->decode(batch.decoder_tokens.repeat({sources, 1}), memory);  // [B K, T, V]
  const Tensor nats = at::cross_entropy_loss(
      logits.flatten(0, 1).to(at::promote_types(logits.scalar_type(), at::kFloat)),
      batch.choices.repeat({sources, 1}).flatten(), {}, at::Reduction::None);  // [B K T]
  return nats.neg().view({sources, choices, -1}).sum(2);
}

Tensor EncoderDecoderModel::forward(const Batch& batch) {
  if (batch.choices.defined()) return score_choices(batch);
  return model_->forward(batch.tokens, batch.decoder_tokens, batch.masks.key_padding_mask);
}

nn::EncoderDecoder& encoder_decoder_of(Model& model) {
  auto* found = dynamic_cast<EncoderDecoderModel*>(&model);
  HEADLOOM_CHECK(found, "task", "a model with an encoder and a decoder", "another");
  return found->encoder_decoder();
}

}  // namespace headloom::tasks

#include "headloom/tasks/translation/translation_model.h"

#include "headloom/base/check.h"

namespace headloom::tasks::translation {
namespace {

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

TranslationModel::TranslationModel(const nn::EncoderDecoderConfig& config)
    : model_(register_module("model", std::make_shared<nn::EncoderDecoder>(config))) {}

at::Tensor TranslationModel::forward(const Batch& batch) {
  return model_->forward(batch.tokens, batch.decoder_tokens, batch.masks.key_padding_mask);
}

nn::EncoderDecoder& encoder_decoder_of(Model& model) {
  auto* found = dynamic_cast<TranslationModel*>(&model);
  HEADLOOM_CHECK(found, "task translation", "a model that this task made", "another");
  return found->encoder_decoder();
}

}  // namespace headloom::tasks::translation

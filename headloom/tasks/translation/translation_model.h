#pragma once

#include <memory>

#include "headloom/nn/encoder_decoder.h"
#include "headloom/tasks/task.h"

namespace headloom::tasks::translation {

// An encoder-decoder as a recipe states it: [model], [mixer] for the self-mixing of both sides
// unless a part has its own section, and attention across. heads and mixing_dropout hold for all.
nn::EncoderDecoderConfig encoder_decoder_config(const nn::TransformerConfig& model,
                                                const EncoderDecoderParts& parts);

// Batches have the source as tokens with its padding mask; logits are [B, T, V].
class TranslationModel : public Model {
 public:
  explicit TranslationModel(const nn::EncoderDecoderConfig& config);
  at::Tensor forward(const Batch& batch) override;
  double flops(int64_t length) const override { return model_->flops(length); }
  nn::EncoderDecoder& encoder_decoder() { return *model_; }

 private:
  std::shared_ptr<nn::EncoderDecoder> model_;
};

// Refuses a model of another task.
nn::EncoderDecoder& encoder_decoder_of(Model& model);

}  // namespace headloom::tasks::translation

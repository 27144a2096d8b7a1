#pragma once

#include <memory>

#include "headloom/nn/encoder_decoder.h"
#include "headloom/tasks/task.h"

// B batch, K choices, T target tokens, V target vocabulary.
namespace headloom::tasks {

// An encoder-decoder as a recipe states it: [model], [mixer] for the self-mixing of both sides
// unless a part has its own section, and attention across. heads and mixing_dropout hold for all.
nn::EncoderDecoderConfig encoder_decoder_config(const nn::TransformerConfig& model,
                                                const EncoderDecoderParts& parts);

// What the tasks from text to text train, with parameters model.* of encoder_decoder.h, so that
// each can start from the weights of another. Batches have the source as tokens with its padding
// mask. Logits are [B, T, V]; of a batch with choices, the log probability of each whole choice
// after each source, [B, K].
class EncoderDecoderModel : public Model {
 public:
  explicit EncoderDecoderModel(const nn::EncoderDecoderConfig& config);
  at::Tensor forward(const Batch& batch) override;
  double flops(int64_t length) const override { return model_->flops(length); }
  nn::EncoderDecoder& encoder_decoder() { return *model_; }

 private:
  at::Tensor score_choices(const Batch& batch);

  std::shared_ptr<nn::EncoderDecoder> model_;
};

// Refuses a model of a task without encoder and decoder.
nn::EncoderDecoder& encoder_decoder_of(Model& model);

}  // namespace headloom::tasks

#include "headloom/tasks/sequence_classifier.h"

#include <ATen/ATen.h>

namespace headloom::tasks {

using at::Tensor;

std::shared_ptr<nn::Transformer> make_encoder(nn::TransformerConfig config, int64_t vocabulary,
                                              Pooling pooling) {
  config.vocabulary = vocabulary + class_vectors(pooling);
  config.causal = false;
  auto encoder = std::make_shared<nn::Transformer>(config);
  if (pooling == Pooling::kClass) {
    const at::NoGradGuard no_grad;
    encoder->embedding()->weight.select(0, vocabulary).zero_();
  }
  return encoder;
}

SequenceClassifier::SequenceClassifier(nn::TransformerConfig config, int64_t vocabulary,
                                       int64_t classes, Pooling pooling)
    : classes_(classes), pooling_(pooling) {
  encoder_ = register_module("encoder", make_encoder(config, vocabulary, pooling));
  head_in_ = register_module("head_in", Linear(config.dim, config.ffn));
  head_out_ = register_module("head_out", Linear(config.ffn, classes));
}

Tensor SequenceClassifier::forward(const Batch& batch) {
  const Tensor pooled = encode_pooled(*encoder_, batch.tokens, batch.masks, pooling_);  // [B, C]
  return head_out_(at::relu(head_in_(pooled)));
}

double SequenceClassifier::flops(int64_t length) const {
  const nn::TransformerConfig& config = encoder_->config();
  const double head =
      2.0 * static_cast<double>(config.ffn) * static_cast<double>(config.dim + classes_);
  return encoder_->flops(length + class_vectors(pooling_)) + head;
}

}  // namespace headloom::tasks

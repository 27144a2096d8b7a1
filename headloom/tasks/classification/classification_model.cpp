#include "headloom/tasks/classification/classification_model.h"

#include <ATen/ATen.h>
#include <torch/nn/init.h>

#include "headloom/mechanisms/dropout.h"

// B batch, T tokens, C model width.
namespace headloom::tasks::classification {

using at::Tensor;

ClassificationModel::ClassificationModel(nn::TransformerConfig config, int64_t classes,
                                         Pooling pooling)
    : classes_(classes), pooling_(pooling), dropout_(config.dropout) {
  config.causal = false;
  encoder_ = register_module("encoder", std::make_shared<nn::Transformer>(config));
  pooler_ = register_module("pooler", Linear(config.dim, config.dim));
  classifier_ = register_module("classifier", Linear(config.dim, classes));
  for (const auto& layer : {pooler_, classifier_}) {
    torch::nn::init::xavier_uniform_(layer->weight);
    torch::nn::init::zeros_(layer->bias);
  }
}

Tensor ClassificationModel::classify(const Tensor& hidden, const Tensor& padding) {
  const Tensor pooled =
      pooling_ == Pooling::kFirst ? hidden.select(1, 0) : mean_of_tokens(hidden, padding);
  return classifier_(headloom::dropout(at::tanh(pooler_(pooled)), dropout_, is_training()));
}

Tensor ClassificationModel::forward(const Batch& batch) {
  const Tensor hidden = encoder_->forward(batch.tokens, batch.masks, batch.segments);  // [B, T, C]
  return classify(hidden, batch.masks.key_padding_mask);
}

Tensor ClassificationModel::forward_rows(const Tensor& rows) {
  return classify(encoder_->forward_rows(rows), {});
}

double ClassificationModel::flops(int64_t length) const {
  const auto dim = static_cast<double>(encoder_->config().dim);
  return encoder_->flops(length) + 2.0 * dim * (dim + static_cast<double>(classes_));
}

}  // namespace headloom::tasks::classification

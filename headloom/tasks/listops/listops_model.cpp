#include "headloom/tasks/listops/listops_model.h"

#include "headloom/tasks/listops/expression.h"

namespace headloom::tasks::listops {
namespace {

using at::Tensor;

constexpr int64_t kValues = 10;

// [B, T] -> [B, T + 1], with `value` in front of each row.
Tensor with_first(const Tensor& rows, int64_t value) {
  return at::cat({at::full({rows.size(0), 1}, value, rows.options()), rows}, 1);
}

}  // namespace

ListOpsModel::ListOpsModel(nn::TransformerConfig config, Pooling pooling) : pooling_(pooling) {
  config.vocabulary = kVocabulary + (pooling == Pooling::kClass ? 1 : 0);
  config.causal = false;
  encoder_ = register_module("encoder", std::make_shared<nn::Transformer>(config));
  head_in_ = register_module("head_in", torch::nn::Linear(config.dim, config.ffn));
  head_out_ = register_module("head_out", torch::nn::Linear(config.ffn, kValues));
  if (pooling == Pooling::kClass) {
    const at::NoGradGuard no_grad;
    encoder_->embedding()->weight.select(0, kClass).zero_();
  }
}

Tensor ListOpsModel::pool(const Batch& batch) const {
  const Tensor& padding = batch.masks.key_padding_mask;  // [B, T] or undefined
  if (pooling_ == Pooling::kClass) {
    Masks masks = batch.masks;
    if (padding.defined()) masks.key_padding_mask = with_first(padding, false);
    return encoder_->forward(with_first(batch.tokens, kClass), masks).select(1, 0);
  }
  const Tensor hidden = encoder_->forward(batch.tokens, batch.masks);  // [B, T, C]
  if (!padding.defined()) return hidden.mean(1);
  const Tensor kept = padding.logical_not().unsqueeze(2).to(hidden.scalar_type());  // [B, T, 1]
  return (hidden * kept).sum(1) / kept.sum(1);
}

Tensor ListOpsModel::forward(const Batch& batch) {
  return head_out_(at::relu(head_in_(pool(batch))));  // [B, C] -> [B, 10]
}

double ListOpsModel::flops(int64_t length) const {
  const nn::TransformerConfig& config = encoder_->config();
  const double head = 2.0 * static_cast<double>(config.ffn) * (config.dim + kValues);
  return encoder_->flops(length + (pooling_ == Pooling::kClass ? 1 : 0)) + head;
}

}  // namespace headloom::tasks::listops

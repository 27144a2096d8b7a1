#include "headloom/tasks/pooling.h"

#include <ATen/ATen.h>

namespace headloom::tasks {
namespace {

using at::Tensor;

// [B, T] -> [B, T + 1], with `value` in front of each row.
Tensor with_first(const Tensor& rows, int64_t value) {
  return at::cat({at::full({rows.size(0), 1}, value, rows.options()), rows}, 1);
}

}  // namespace

Tensor mean_of_tokens(const Tensor& hidden, const Tensor& padding) {
  if (!padding.defined()) return hidden.mean(1);
  const Tensor kept = padding.logical_not().unsqueeze(2).to(hidden.scalar_type());  // [B, T, 1]
  return (hidden * kept).sum(1) / kept.sum(1);
}

Tensor encode_pooled(nn::Transformer& encoder, const Tensor& tokens, const Masks& given,
                     Pooling pooling) {
  if (pooling != Pooling::kClass) {
    const Tensor hidden = encoder.forward(tokens, given);  // [B, T, C]
    if (pooling == Pooling::kFirst) return hidden.select(1, 0);
    return pooling == Pooling::kMean ? mean_of_tokens(hidden, given.key_padding_mask)
                                     : hidden.mean(1);
  }
  Masks masks = given;
  if (masks.key_padding_mask.defined()) {
    masks.key_padding_mask = with_first(masks.key_padding_mask, false);
  }
  const int64_t vector = encoder.config().vocabulary - 1;
  return encoder.forward(with_first(tokens, vector), masks).select(1, 0);
}

}  // namespace headloom::tasks

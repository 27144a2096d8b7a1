#include "headloom/mechanisms/dot_product/dot_product_reference.h"

#include <ATen/ATen.h>

#include <limits>

#include "headloom/tensor/dropout.h"

namespace headloom {

std::tuple<at::Tensor, at::Tensor> dot_product_reference(const at::Tensor& q, const at::Tensor& k,
                                                         const at::Tensor& v,
                                                         const DotProductRows& rows) {
  const int64_t keys = k.size(2);
  constexpr double kNever = -std::numeric_limits<double>::infinity();
  at::Tensor logits = at::matmul(q * rows.scale, k.transpose(-2, -1));  // [B, H, rows, Tk]
  if (rows.bias.defined()) logits = logits + rows.bias;
  if (rows.key_padding_mask.defined()) {
    logits = logits.masked_fill(rows.key_padding_mask.unsqueeze(1).unsqueeze(1), kNever);
  }
  if (rows.causal) {
    const auto positions = at::TensorOptions().dtype(at::kLong).device(q.device());
    const at::Tensor last =
        at::arange(q.size(2), positions) + (rows.row_begin + keys - rows.queries);
    logits = logits.masked_fill(at::arange(keys, positions) > last.unsqueeze(1), kNever);
  }
  if (keys == 0) {
    return {at::matmul(logits, v), logits.new_full({q.size(0), q.size(1), q.size(2)}, kNever)};
  }
  // A row of -inf has no finite maximum; 0 in its place leaves exp(-inf) = 0 and no NaN.
  at::Tensor maximum = std::get<0>(logits.detach().max(-1, /*keepdim=*/true));
  maximum = at::where(maximum == kNever, at::zeros_like(maximum), maximum);
  const at::Tensor numerator = (logits - maximum).exp();
  const at::Tensor sum = numerator.sum(-1, /*keepdim=*/true);
  at::Tensor weights = numerator / (sum + (sum == 0).to(sum.scalar_type()));
  const at::Tensor log_sum_exp = (sum.log() + maximum).squeeze(-1);
  if (rows.dropout_p > 0.0) {
    const std::vector<int64_t> whole{q.size(0), q.size(1), rows.queries, keys};
    weights = weights * dropout_mask(whole, rows.dropout_p, rows.seed, q.options(), 2,
                                     rows.row_begin, rows.row_begin + q.size(2));
  }
  return {at::matmul(weights, v), log_sum_exp};
}

}  // namespace headloom

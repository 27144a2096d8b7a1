#include "headloom/mechanisms/symmetric/symmetric_reference.h"

#include <ATen/ATen.h>

#include <limits>

#include "headloom/tensor/dropout.h"

namespace headloom {

using at::Tensor;

Tensor fold_queries(const Tensor& q, const Tensor& pairwise, int64_t heads) {
  const Tensor spread = q.size(1) == heads ? q : q.repeat_interleave(heads / q.size(1), 1);
  return pairwise.defined() ? at::matmul(spread, pairwise) : spread;  // [B, H, T, D]
}

Tensor symmetric_reference(const Tensor& q, const Tensor& v, const SymmetricReferenceArgs& args) {
  const int64_t heads = v.size(1), queries = q.size(2), keys = v.size(2);
  constexpr double kNever = -std::numeric_limits<double>::infinity();
  const Tensor k = fold_queries(args.k.defined() ? args.k : q, {}, heads);  // [B, H, Tk, D]
  Tensor logits =
      at::matmul(fold_queries(q * args.scale, args.pairwise, heads), k.transpose(-2, -1));
  if (args.bias.defined()) logits = logits + args.bias;  // [B, H, T, Tk]
  if (args.key_padding_mask.defined()) {
    logits = logits.masked_fill(args.key_padding_mask.unsqueeze(1).unsqueeze(1), kNever);
  }
  if (args.causal) {
    const auto positions = at::TensorOptions().dtype(at::kLong).device(q.device());
    const Tensor last = at::arange(queries, positions) + (keys - queries);
    logits = logits.masked_fill(at::arange(keys, positions) > last.unsqueeze(1), kNever);
  }
  if (keys == 0) return at::matmul(logits, v);
  // A row of -inf has no finite maximum; 0 in its place leaves exp(-inf) = 0 and no NaN.
  Tensor maximum = std::get<0>(logits.detach().max(-1, /*keepdim=*/true));
  maximum = at::where(maximum == kNever, at::zeros_like(maximum), maximum);
  const Tensor numerator = (logits - maximum).exp();
  const Tensor sum = numerator.sum(-1, /*keepdim=*/true);
  Tensor weights = numerator / (sum + (sum == 0).to(sum.scalar_type()));
  if (args.dropout_p > 0.0) {
    weights = weights * dropout_mask(weights.sizes(), args.dropout_p, args.seed, q.options());
  }
  return at::matmul(weights, v);
}

}  // namespace headloom

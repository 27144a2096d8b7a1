#include "headloom/mechanisms/talking_heads/talking_heads_reference.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "headloom/tensor/dropout.h"

// r rows of queries, T keys, g groups of heads, i and o heads in and out of a group.
namespace headloom {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

constexpr double kNever = -std::numeric_limits<double>::infinity();

// x [B, g i, r, T] -> [B, g o, r, T]
Tensor mix(const Tensor& x, const OptionalTensor& projection, const OptionalTensor& by_query,
           const OptionalTensor& by_key) {
  if (!projection) return x;
  const bool grouped = projection->dim() == 3;
  const auto in_groups = [&](const Tensor& w) { return grouped ? w : w.unsqueeze(-3); };
  const Tensor weights = in_groups(*projection);  // [g, i, o]
  const Tensor heads = x.unflatten(1, {weights.size(0), weights.size(1)});
  Tensor y = at::einsum("bgirt,gio->bgort", {heads, weights});
  if (by_query) y = y + at::einsum("bgirt,brgio->bgort", {heads, in_groups(*by_query)});
  if (by_key) y = y + at::einsum("bgirt,btgio->bgort", {heads, in_groups(*by_key)});
  return y.flatten(1, 2);
}

Tensor hide(Tensor logits, const TalkingHeadsOptions& options, const TalkingHeadsRows& rows) {
  const int64_t keys = logits.size(3);
  if (options.key_padding_mask) {
    logits = logits.masked_fill(options.key_padding_mask->unsqueeze(1).unsqueeze(1), kNever);
  }
  if (!options.causal) return logits;
  const auto positions = at::TensorOptions().dtype(at::kLong).device(logits.device());
  const Tensor last =
      at::arange(logits.size(2), positions) + (rows.row_begin + keys - rows.queries);
  return logits.masked_fill(at::arange(keys, positions) > last.unsqueeze(1), kNever);
}

// [H or 1, distances] -> [H or 1, r, T]
Tensor by_distance(const Tensor& relative_bias, const TalkingHeadsRows& rows, int64_t count,
                   int64_t keys) {
  const auto positions = at::TensorOptions().dtype(at::kLong).device(relative_bias.device());
  const Tensor distance = (at::arange(count, positions) + rows.row_begin).unsqueeze(1) -
                          at::arange(keys, positions) + rows.relative_zero;
  return relative_bias.index_select(1, distance.flatten())
      .view({relative_bias.size(0), count, keys});
}

// The multipliers of weights [B, heads, r, T].
Tensor dropout(const Tensor& weights, const TalkingHeadsOptions& options,
               const TalkingHeadsRows& rows) {
  const int64_t batch = weights.size(0), heads = weights.size(1), keys = weights.size(3);
  if (options.dropout_site == "per_key") {
    return dropout_mask({batch, heads, keys}, options.dropout_p, *options.seed, weights.options())
        .unsqueeze(2);
  }
  return dropout_mask({batch, heads, rows.queries, keys}, options.dropout_p, *options.seed,
                      weights.options(), 2, rows.row_begin, rows.row_begin + weights.size(2));
}

}  // namespace

std::tuple<Tensor, Tensor> talking_heads_reference(const Tensor& q, const Tensor& k,
                                                   const Tensor& v,
                                                   const TalkingHeadsOptions& options,
                                                   const TalkingHeadsRows& rows) {
  const double scale = options.scale.value_or(1.0 / std::sqrt(static_cast<double>(q.size(3))));
  const Tensor dots = at::matmul(q * scale, k.transpose(-2, -1));            // [B, K, r, T]
  Tensor logits = mix(dots, options.logits_proj, options.x2l, options.m2l);  // [B, H, r, T]
  if (options.bias) logits = logits + *options.bias;
  if (options.relative_bias) {
    logits = logits + by_distance(*options.relative_bias, rows, q.size(2), k.size(2));
  }
  logits = hide(logits, options, rows);
  Tensor sum;
  Tensor weights = logits, log2_sums = logits.new_full(logits.sizes().slice(0, 3), kNever);
  if (k.size(2) > 0) {
    // A row of -inf has no finite maximum; 0 in its place leaves exp(-inf) = 0 and no NaN.
    Tensor maximum = std::get<0>(logits.detach().max(-1, /*keepdim=*/true));
    maximum = at::where(maximum == kNever, at::zeros_like(maximum), maximum);
    const Tensor numerator = (logits - maximum).exp();
    sum = numerator.sum(-1, /*keepdim=*/true);
    weights = numerator / (sum + (sum == 0).to(sum.scalar_type()));
    log2_sums = ((sum.log() + maximum) * (1.0 / std::log(2.0))).squeeze(-1);
  }
  const bool drops = options.dropout_p > 0.0, before = options.dropout_site == "before_mix";
  if (drops && before) weights = weights * dropout(weights, options, rows);
  Tensor mixed = mix(weights, options.weights_proj, options.x2w, options.m2w);  // [B, V, r, T]
  if (drops && !before) mixed = mixed * dropout(mixed, options, rows);
  return {at::matmul(mixed, v), log2_sums};
}

}  // namespace headloom

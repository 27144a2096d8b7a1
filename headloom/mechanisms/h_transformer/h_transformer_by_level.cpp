// One level after the other in torch operations: blocks of queries against the gathered blocks of
// keys beside them, merged by the logarithms of their sums. Any device; no T x T tensor.
#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "headloom/mechanisms/h_transformer/h_transformer_dispatch.h"
#include "headloom/mechanisms/h_transformer/h_transformer_kernels.h"
#include "headloom/mechanisms/h_transformer/h_transformer_sums.h"
#include "headloom/tensor/dispatch.h"
#include "headloom/tensor/dropout.h"

// T tokens, n rows of a level, N blocks of R rows, W keys that a block sees, P queries of a block.
namespace headloom {
namespace {

using at::Tensor;

constexpr double kNever = -std::numeric_limits<double>::infinity();

// Rows of one level. Counts are tokens that are not padding.
struct Rows {
  Tensor q, k, v;                 // [B, H, n or T, .]
  Tensor query_count, key_count;  // [B, 1, n or T, 1]
};

Tensor pad_rows(const Tensor& x, int64_t behind, int64_t before = 0) {
  return at::constant_pad_nd(x, {0, 0, before, behind});
}

// Rows 2J and 2J + 1 of x, [B, H, n / 2, .] each; what is missing at the end is zero.
std::pair<Tensor, Tensor> children(const Tensor& x) {
  const Tensor even = x.size(2) % 2 ? pad_rows(x, 1) : x;
  const Tensor pairs = even.unflatten(2, {even.size(2) / 2, 2});
  return {pairs.select(3, 0), pairs.select(3, 1)};
}

Tensor mean_of_children(const Tensor& x, const Tensor& count) {
  const auto [first, second] = children(x);
  const auto [first_count, second_count] = children(count);
  return (first * first_count + second * second_count) / (first_count + second_count).clamp_min(1);
}

Rows coarsen(const Rows& x, const HAttentionCall& call) {
  Rows up = x;
  up.k = mean_of_children(x.k, x.key_count);
  up.v = mean_of_children(x.v, x.key_count);
  const auto [first_key, second_key] = children(x.key_count);
  up.key_count = first_key + second_key;
  if (call.fine) return up;
  const auto [first, second] = children(x.query_count);
  if (call.causal) {
    const auto [first_query, second_query] = children(x.q);
    up.q = at::where(first > 0, first_query, second_query);
  } else {
    up.q = mean_of_children(x.q, x.query_count);
  }
  up.query_count = first + second;
  return up;
}

Tensor cleared(const Tensor& x, const std::optional<Tensor>& padding) {
  return padding ? x.masked_fill(padding->unsqueeze(1).unsqueeze(-1), 0.0) : x;
}

Rows tokens(const Tensor& q, const Tensor& k, const Tensor& v, const HAttentionCall& call) {
  const at::ScalarType type = accumulation_type(q);
  const auto& hidden = call.query_padding_mask ? call.query_padding_mask : call.key_padding_mask;
  const auto count = [&](const std::optional<Tensor>& padding) {
    const auto options = q.options().dtype(type);
    if (!padding) return at::ones({q.size(0), 1, q.size(2), 1}, options);
    return padding->logical_not().to(type).unsqueeze(1).unsqueeze(-1);
  };
  Rows x{cleared(q.to(type), hidden), cleared(k.to(type), call.key_padding_mask),
         cleared(v.to(type), call.key_padding_mask), count(hidden), count(call.key_padding_mask)};
  if (call.center_keys) {
    const Tensor sum = x.k.sum(2, true), whole = x.key_count.sum(2, true).clamp_min(1);
    x.k = cleared(x.k - sum / whole, call.key_padding_mask);
  }
  x.q = x.q * h_attention_scale(q, call);
  return x;
}

// One level of a call: its blocks and what they see.
class Level {
 public:
  Level(const Rows& rows, int level, const HAttentionCall& call)
      : rows_(rows), level_(level), call_(call), block_(call.block_size) {
    blocks_ = (rows.k.size(2) + block_ - 1) / block_;
    per_block_ = call.fine ? block_ << level : block_;
    // Blocks beside a block that it sees, from left to right.
    for (int64_t at : {-1, 0, 1}) {
      if ((at != 0 || level == 0) && (at <= 0 || !call.causal)) beside_.push_back(at);
    }
    const auto options = at::TensorOptions().dtype(at::kLong).device(rows.k.device());
    row_ = at::arange(per_block_, options).unsqueeze(1);  // [P, 1]
    if (call.fine) row_ = at::bitwise_right_shift(row_, level);
    std::vector<Tensor> columns;
    for (int64_t at : beside_) columns.push_back(at::arange(block_, options) + at * block_);
    column_ = at::cat(columns).unsqueeze(0);  // [1, W], relative to the block's first row
  }

  // [B, H, N, P, W]
  Tensor logits() const {
    Tensor x = at::matmul(query_blocks(rows_.q), key_blocks(rows_.k).transpose(-2, -1));
    const Tensor offset = column_ - row_ + 2 * block_ - 1;
    if (call_.bias) {
      const Tensor bias = call_.bias->to(x.scalar_type())
                              .index_select(1, offset.clamp(0, 4 * block_ - 2).reshape({-1}));
      x = x + bias.view({1, -1, 1, per_block_, column_.size(1)});
    }
    x = x + key_blocks(rows_.key_count).squeeze(-1).unsqueeze(-2).log();
    return x.masked_fill(hidden(), kNever);
  }

  Tensor values() const { return key_blocks(rows_.v); }

  // Multipliers of the weights, [B, H, N, P, W]. `rows` of the whole mask, this level's `first`.
  Tensor multipliers(const Tensor& like, int64_t rows, int64_t first) const {
    const auto options = row_.options();
    const Tensor block = at::arange(blocks_, options).view({-1, 1, 1});
    const Tensor lane = at::arange(per_block_, options).view({1, -1, 1});
    const Tensor row = (first + block * per_block_ + lane).clamp_max(rows - 1);  // [N, P, 1]
    const Tensor offset = (column_ - row_ + 2 * block_ - 1).clamp(0, 4 * block_ - 1);
    const Tensor mask = dropout_mask({like.size(0), like.size(1), rows, 4 * block_},
                                     call_.dropout_p, *call_.seed, like.options());
    return mask.flatten(2)
        .index_select(2, (row * (4 * block_) + offset).reshape({-1}))
        .view_as(like);
  }

  // Blocks [B, H, N, P, .] as rows of tokens [B, H, T, .].
  Tensor per_token(const Tensor& blocks, int64_t time) const {
    const Tensor rows = blocks.flatten(2, 3);
    const Tensor each = call_.fine || level_ == 0 ? rows : rows.repeat_interleave(1 << level_, 2);
    return each.narrow(2, 0, time);
  }

 private:
  Tensor query_blocks(const Tensor& x) const {
    return pad_rows(x, blocks_ * per_block_ - x.size(2)).unflatten(2, {blocks_, per_block_});
  }
  Tensor key_blocks(const Tensor& x) const {
    const Tensor padded = pad_rows(x, (blocks_ + 1) * block_ - x.size(2), block_);
    std::vector<Tensor> parts;
    for (int64_t at : beside_) {
      parts.push_back(
          padded.narrow(2, (at + 1) * block_, blocks_ * block_).unflatten(2, {blocks_, block_}));
    }
    return at::cat(parts, 3);
  }
  // [P, W]: later tokens, and the quadrants that the level below has covered.
  Tensor hidden() const {
    if (level_ == 0) return call_.causal ? column_ > row_ : at::zeros_like(column_ > row_);
    const int64_t half = block_ / 2;
    return ((row_ < half) & (column_ >= -half) & (column_ < 0)) |
           ((row_ >= half) & (column_ >= block_) & (column_ < block_ + half));
  }

  const Rows& rows_;
  int level_;
  const HAttentionCall& call_;
  int64_t block_, blocks_, per_block_;
  std::vector<int64_t> beside_;
  Tensor row_, column_;
};

HAttentionHalves sequence(const Tensor& q, const Tensor& k, const Tensor& v,
                          const HAttentionCall& call) {
  const int64_t time = q.size(2);
  const int levels = kernels::h_attention_levels(time, call.block_size);
  Rows rows = tokens(q, k, v, call);
  const Tensor there = rows.query_count;
  int64_t mask_rows = 0, first = 0;
  for (int l = 0; l < levels; ++l) mask_rows += call.fine ? time : (time + (1 << l) - 1) >> l;
  HAttentionSums sums;
  for (int l = 0; l < levels; ++l) {
    if (l > 0) rows = coarsen(rows, call);
    const Level level(rows, l, call);
    const Tensor logits = level.logits();
    // A finite stand-in for the maximum of nothing.
    const Tensor maximum =
        std::get<0>(logits.detach().max(-1, true)).clamp_min(std::numeric_limits<float>::lowest());
    Tensor weights = (logits - maximum).exp();
    const Tensor sum = weights.sum(-1, true);
    if (call.dropout_p > 0.0) weights = weights * level.multipliers(weights, mask_rows, first);
    first += rows.q.size(2);
    const Tensor value = at::matmul(weights, level.values());
    const HAttentionSums here{level.per_token(maximum, time), level.per_token(sum, time),
                              level.per_token(value, time)};
    if (l == 0) {
      sums = here;
    } else {
      sums.add(here);
    }
  }
  const Tensor none = (sums.weight == 0) | (there == 0);
  const Tensor out = (sums.value / sums.weight.masked_fill(none, 1.0)).masked_fill(none, 0.0);
  const Tensor log_sum = (sums.weight.log() + sums.maximum).masked_fill(none, kNever);
  return {out.to(q.scalar_type()), (log_sum / std::log(2.0)).squeeze(-1)};
}

}  // namespace

HAttentionHalves h_attention_by_level(const Tensor& q, const Tensor& k, const Tensor& v,
                                      const HAttentionCall& call) {
  const std::vector<int64_t> bounds = h_attention_bounds(q, call);
  const auto options = q.options().dtype(accumulation_type(q));
  std::vector<Tensor> outs{v.narrow(2, 0, 0)};
  std::vector<Tensor> sums{at::empty({q.size(0), q.size(1), 0}, options)};
  for (size_t s = 0; s + 1 < bounds.size(); ++s) {
    const int64_t length = bounds[s + 1] - bounds[s];
    if (length == 0) continue;
    const auto part = [&](const Tensor& x) { return x.narrow(2, bounds[s], length); };
    const auto [out, sum] = sequence(part(q), part(k), part(v), h_attention_part(call, bounds, s));
    outs.push_back(out);
    sums.push_back(sum);
  }
  return {at::cat(outs, 2), at::cat(sums, 2)};
}

}  // namespace headloom

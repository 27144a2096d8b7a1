#include "headloom/mechanisms/h_transformer/h_transformer_decoding.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "headloom/base/check.h"
#include "headloom/mechanisms/h_transformer/h_transformer_dispatch.h"
#include "headloom/mechanisms/h_transformer/h_transformer_kernels.h"
#include "headloom/tensor/dispatch.h"

namespace headloom {
namespace {

using at::Tensor;

constexpr const char* kWhere = "h_attention decoding";

// Rows 2J and 2J + 1 of x [B, H, n, .] averaged; a last row without a partner is left out.
Tensor mean_of_pairs(const Tensor& x) {
  const int64_t pairs = x.size(2) / 2;
  return x.narrow(2, 0, 2 * pairs).unflatten(2, {pairs, 2}).mean(3);
}

}  // namespace

HAttentionState::HAttentionState(const HAttentionOptions& options) : options_(options) {
  const HAttentionCall call = h_attention_call(options);
  HEADLOOM_CHECK(!call.key_padding_mask && !call.query_padding_mask && !call.cu_seqlens, kWhere,
                 "sequences of one length without padding", "a mask or cu_seqlens",
                 "Decode sequences of different lengths apart.");
  HEADLOOM_CHECK(call.dropout_p == 0.0 && !call.center_keys, kWhere,
                 "neither dropout_p nor center_keys", "one of them");
  options_.causal = true;
}

double HAttentionState::scale(const Tensor& q) const {
  return h_attention_scale(q, h_attention_call(options_));
}

Tensor HAttentionState::step(const Tensor& q, const Tensor& k, const Tensor& v) {
  const at::NoGradGuard no_grad;
  check_h_attention(q, k, v, h_attention_call(options_));
  HEADLOOM_CHECK(q.size(2) >= 1, kWhere, "at least one token", "none");
  if (!levels_.empty()) {
    const Tensor& held = levels_[0].k;
    const bool same = held.size(0) == q.size(0) && held.size(1) == q.size(1) &&
                      held.size(3) == q.size(3) && levels_[0].v.size(3) == v.size(3);
    HEADLOOM_CHECK(same, kWhere, cat("keys like those before, ", held.sizes()), cat(k.sizes()));
  }
  if (length_ == 0 && q.size(2) > 1) return prefill(q, k, v);
  const at::ScalarType type = accumulation_type(q);
  std::vector<Tensor> outs;
  for (int64_t i = 0; i < q.size(2); ++i) {
    const auto token = [&](const Tensor& x) { return x.narrow(2, i, 1).to(type); };
    outs.push_back(step_one(token(q), token(k), token(v)));
  }
  return at::cat(outs, 2).to(q.scalar_type());
}

Tensor HAttentionState::prefill(const Tensor& q, const Tensor& k, const Tensor& v) {
  const at::ScalarType type = accumulation_type(q);
  const int64_t time = q.size(2), ring = 2 * options_.block_size;
  length_ = time;
  Tensor level_k = k.to(type), level_v = v.to(type);
  for (int l = 0; l < kernels::h_attention_levels(time, options_.block_size); ++l) {
    if (l > 0) {
      level_k = mean_of_pairs(level_k);
      level_v = mean_of_pairs(level_v);
    }
    levels_.emplace_back();
    const auto hold = [&](const Tensor& rows) {
      return at::zeros({rows.size(0), rows.size(1), ring, rows.size(3)}, rows.options());
    };
    levels_[l].k = hold(level_k);
    levels_[l].v = hold(level_v);
    const int64_t groups = time >> l;
    for (int64_t group = std::max<int64_t>(0, groups - ring); group < groups;) {
      const int64_t count = std::min(groups - group, ring - group % ring);
      levels_[l].k.narrow(2, group % ring, count).copy_(level_k.narrow(2, group, count));
      levels_[l].v.narrow(2, group % ring, count).copy_(level_v.narrow(2, group, count));
      group += count;
    }
    // What the group that is under way sees here; the next one looks for itself.
    const int64_t begin = groups << l;
    if (l > 0 && begin < time) look(l, q.narrow(2, begin, 1).to(type), begin);
  }
  return h_attention(q, k, v, options_);
}

Tensor HAttentionState::step_one(const Tensor& q, const Tensor& k, const Tensor& v) {
  if (levels_.empty()) {
    const auto hold = [&](const Tensor& rows) {
      return at::zeros({rows.size(0), rows.size(1), 2 * options_.block_size, rows.size(3)},
                       rows.options());
    };
    levels_.push_back({hold(k), hold(v), {}, {}});
  }
  const int64_t top = static_cast<int64_t>(levels_.size()) - 1;
  if (length_ == (2 * options_.block_size) << top) add_level();
  write(0, length_, k, v);
  const bool fine = is_fine(options_.query_mode);
  for (size_t l = 0; l < levels_.size(); ++l) {
    const bool begins = (length_ & ((int64_t{1} << l) - 1)) == 0;
    if (fine || begins) look(l, q, length_);
  }
  ++length_;
  complete_groups();
  return merge();
}

// Both blocks of the last level are complete: together they are the first block of the next.
void HAttentionState::add_level() {
  const Level& last = levels_.back();
  const auto above = [&](const Tensor& rows) {
    const Tensor held = at::zeros_like(rows);
    held.narrow(2, 0, options_.block_size).copy_(mean_of_pairs(rows));
    return held;
  };
  levels_.push_back({above(last.k), above(last.v), {}, {}});
}

void HAttentionState::write(size_t level, int64_t group, const Tensor& k, const Tensor& v) {
  const int64_t row = group % (2 * options_.block_size);
  levels_[level].k.narrow(2, row, 1).copy_(k);
  levels_[level].v.narrow(2, row, 1).copy_(v);
}

void HAttentionState::complete_groups() {
  for (size_t l = 0; l + 1 < levels_.size(); ++l) {
    if ((length_ & ((int64_t{2} << l) - 1)) != 0) return;
    const int64_t parent = (length_ >> (l + 1)) - 1;
    const int64_t row = 2 * parent % (2 * options_.block_size);
    const auto pair = [&](const Tensor& rows) { return mean_of_pairs(rows.narrow(2, row, 2)); };
    write(l + 1, parent, pair(levels_[l].k), pair(levels_[l].v));
  }
}

void HAttentionState::look(size_t level, const Tensor& q, int64_t token) {
  const int64_t block_size = options_.block_size, group = token >> level;
  const int64_t block = group / block_size, local = group % block_size;
  Level& at = levels_[level];
  std::vector<Tensor> keys, values;
  int64_t count = 0;
  const auto read = [&](int64_t slot, int64_t rows) {
    keys.push_back(at.k.narrow(2, slot * block_size, rows));
    values.push_back(at.v.narrow(2, slot * block_size, rows));
    count += rows;
  };
  // The second half of a block does not see what the level below has shown it.
  const bool near = level > 0 && local < block_size / 2;
  if (block > 0) read((block - 1) % 2, near ? block_size / 2 : block_size);
  if (level == 0) read(block % 2, local + 1);
  keys_read_ += count;
  if (count == 0) {
    at.log_sum =
        at::full({q.size(0), q.size(1), 1}, -std::numeric_limits<double>::infinity(), q.options());
    at.mean = at::zeros({q.size(0), q.size(1), 1, at.v.size(3)}, q.options());
    return;
  }
  Tensor logits = at::matmul(q * scale(q), at::cat(keys, 2).transpose(-2, -1));  // [B, H, 1, count]
  if (options_.bias) {
    const int64_t first = (block > 0 ? -block_size : 0) - local + 2 * block_size - 1;
    logits = logits + options_.bias->narrow(1, first, count).to(q.scalar_type()).unsqueeze(1);
  }
  const Tensor log_sum = logits.logsumexp(-1, /*keepdim=*/true);
  at.mean = at::matmul((logits - log_sum).exp(), at::cat(values, 2));
  at.log_sum = log_sum.squeeze(-1) + static_cast<double>(level) * std::log(2.0);
}

Tensor HAttentionState::merge() const {
  std::vector<Tensor> log_sums, means;
  for (const Level& level : levels_) {
    if (!level.mean.defined()) continue;
    log_sums.push_back(level.log_sum);
    means.push_back(level.mean);
  }
  const Tensor weights = at::cat(log_sums, 2).softmax(-1);  // [B, H, levels]
  return (at::cat(means, 2) * weights.unsqueeze(-1)).sum(2, /*keepdim=*/true);
}

void HAttentionState::reorder(const Tensor& index) {
  for (Level& level : levels_) {
    for (Tensor* x : {&level.k, &level.v, &level.log_sum, &level.mean}) {
      if (x->defined()) *x = x->index_select(0, index);
    }
  }
}

int64_t HAttentionState::bytes() const {
  size_t sum = 0;
  for (const Level& level : levels_) {
    for (const Tensor& x : {level.k, level.v, level.log_sum, level.mean}) {
      if (x.defined()) sum += x.nbytes();
    }
  }
  return static_cast<int64_t>(sum);
}

int64_t HAttentionState::entries() const {
  int64_t sum = 0;
  for (size_t l = 0; l < levels_.size(); ++l) {
    sum += std::min(length_ >> l, 2 * options_.block_size);
  }
  return sum;
}

}  // namespace headloom

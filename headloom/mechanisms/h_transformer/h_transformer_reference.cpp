#include "headloom/mechanisms/h_transformer/h_transformer_reference.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "headloom/mechanisms/h_transformer/h_transformer_kernels.h"
#include "headloom/tensor/dropout.h"
#include "headloom/tensor/gradients.h"

// T tokens, n groups of a level, R block size.
namespace headloom {
namespace {

using at::Tensor;

constexpr double kNever = -std::numeric_limits<double>::infinity();

at::TensorOptions positions(const Tensor& like) {
  return at::TensorOptions().dtype(at::kLong).device(like.device());
}

// [B, T], 1 where a token is there, in the dtype of `like`.
Tensor present(const std::optional<Tensor>& padding, const Tensor& like) {
  if (!padding) return at::ones({like.size(0), like.size(2)}, like.options());
  return padding->logical_not().to(like.scalar_type());
}

// [B, n, T]: the share of each token in the mean of its group.
Tensor mean_of_groups(const Tensor& there, int level) {
  const int64_t time = there.size(1), groups = (time + (int64_t{1} << level) - 1) >> level;
  const auto options = positions(there);
  const Tensor group = at::bitwise_right_shift(at::arange(time, options), level);
  const Tensor member = (at::arange(groups, options).unsqueeze(1) == group).to(there.scalar_type());
  const Tensor counted = member.unsqueeze(0) * there.unsqueeze(1);
  return counted / counted.sum(-1, /*keepdim=*/true).clamp_min(1);
}

// The same for the first token of each group that is there.
Tensor first_of_groups(const Tensor& there, int level) {
  const Tensor counted = (mean_of_groups(there, level) > 0).to(at::kLong);
  return ((counted.cumsum(-1) == 1) & (counted == 1)).to(there.scalar_type());
}

Tensor cleared(const Tensor& x, const std::optional<Tensor>& padding) {
  return padding ? x.masked_fill(padding->unsqueeze(1).unsqueeze(-1), 0.0) : x;
}

struct Dense {
  const HAttentionCall& call;
  Tensor q, k;                    // [B, H, T, D], zeros at padding
  Tensor query_there, key_there;  // [B, T]

  Dense(const Tensor& queries, const Tensor& keys, const HAttentionCall& given) : call(given) {
    const auto& hidden = call.query_padding_mask ? call.query_padding_mask : call.key_padding_mask;
    q = cleared(queries, hidden);
    k = cleared(keys, call.key_padding_mask);
    query_there = present(hidden, q);
    key_there = present(call.key_padding_mask, k);
    if (call.center_keys) {
      const Tensor count = key_there.sum(1).clamp_min(1).view({-1, 1, 1, 1});
      k = cleared(k - k.sum(2, /*keepdim=*/true) / count, call.key_padding_mask);
    }
  }

  // Of groups J and I, with the bias: [B, H, n, n], or [B, H, T, n] for fine queries.
  Tensor logits(int level) const {
    Tensor queries = q;
    if (!call.fine && level > 0) {
      const Tensor take =
          call.causal ? first_of_groups(query_there, level) : mean_of_groups(query_there, level);
      queries = at::matmul(take.unsqueeze(1), q);
    }
    const Tensor keys = at::matmul(mean_of_groups(key_there, level).unsqueeze(1), k);
    return at::matmul(queries * h_attention_scale(q, call), keys.transpose(-2, -1));
  }
};

}  // namespace

Tensor h_attention_level_of(int64_t time, int64_t block_size, const at::Device& device) {
  const Tensor token = at::arange(time, at::TensorOptions().dtype(at::kLong).device(device));
  Tensor level = at::zeros({time, time}, token.options());
  for (int l = 0; l + 1 < kernels::h_attention_levels(time, block_size); ++l) {
    const Tensor block = at::floor_divide(at::bitwise_right_shift(token, l), block_size);
    level += ((block.unsqueeze(1) - block).abs() > 1).to(at::kLong);
  }
  return level;
}

Tensor h_attention_dense(const Tensor& given_q, const Tensor& given_k, const HAttentionCall& call) {
  const Dense dense(given_q, given_k, call);
  const int64_t time = given_q.size(2), block = call.block_size;
  const int levels = kernels::h_attention_levels(time, block);
  const auto options = positions(given_q);
  const Tensor token = at::arange(time, options);
  const Tensor level_of = h_attention_level_of(time, block, given_q.device());
  Tensor logits =
      at::full({given_q.size(0), given_q.size(1), time, time}, kNever, given_q.options());
  Tensor element = at::zeros({time, time}, options);  // of the dropout mask
  int64_t first_row = 0;
  for (int l = 0; l < levels; ++l) {
    const Tensor group = at::bitwise_right_shift(token, l);
    const Tensor row = call.fine ? token : group;
    const Tensor here = level_of == l;
    // [T, T], in range where `here`
    const Tensor offset = (group - group.unsqueeze(1) + 2 * block - 1).clamp(0, 4 * block - 2);
    Tensor scores = dense.logits(l).index_select(2, row).index_select(3, group);
    if (call.bias)
      scores = scores + call.bias->index_select(1, offset.view(-1)).view({1, -1, time, time});
    logits = at::where(here, scores, logits);
    element = at::where(here, (first_row + row.unsqueeze(1)) * (4 * block) + offset, element);
    first_row += call.fine ? time : (time + (int64_t{1} << l) - 1) >> l;
  }
  logits = logits.masked_fill((dense.key_there == 0).unsqueeze(1).unsqueeze(1), kNever);
  logits = logits.masked_fill((dense.query_there == 0).unsqueeze(1).unsqueeze(-1), kNever);
  if (call.causal) logits = logits.masked_fill(token > token.unsqueeze(1), kNever);
  if (time == 0) return logits;
  Tensor maximum = std::get<0>(logits.detach().max(-1, /*keepdim=*/true));
  maximum = at::where(maximum == kNever, at::zeros_like(maximum), maximum);
  const Tensor numerator = (logits - maximum).exp();
  const Tensor sum = numerator.sum(-1, /*keepdim=*/true);
  Tensor weights = numerator / (sum + (sum == 0).to(sum.scalar_type()));
  if (call.dropout_p > 0.0) {
    const int64_t B = given_q.size(0), H = given_q.size(1);
    const Tensor mask =
        dropout_mask({B, H, first_row, 4 * block}, call.dropout_p, *call.seed, given_q.options());
    weights =
        weights * mask.view({B, H, -1}).index_select(2, element.view(-1)).view({B, H, time, time});
  }
  return weights;
}

Tensor h_attention_reference(const Tensor& q, const Tensor& k, const Tensor& v,
                             const HAttentionCall& call) {
  const std::vector<int64_t> bounds = h_attention_bounds(q, call);
  std::vector<Tensor> parts;
  for (size_t s = 0; s + 1 < bounds.size(); ++s) {
    const auto part = [&](const Tensor& x) {
      return x.narrow(2, bounds[s], bounds[s + 1] - bounds[s]);
    };
    const HAttentionCall one = h_attention_part(call, bounds, s);
    parts.push_back(at::matmul(h_attention_dense(part(q), part(k), one),
                               cleared(part(v), one.key_padding_mask)));
  }
  parts.push_back(v.narrow(2, 0, 0));
  return at::cat(parts, 2);
}

}  // namespace headloom

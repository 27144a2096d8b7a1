// Three disjoint sets of keys for each rank's queries: its own part, through the kernels; the
// blocks of its neighbours beside its edges, level by level; and the levels at which a rank is one
// block or less, which every rank builds from the gathered blocks. Sums of the three are merged.
#include "headloom/mechanisms/h_transformer/h_transformer_sharded.h"

#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <limits>

#include "headloom/base/check.h"
#include "headloom/mechanisms/h_transformer/h_transformer_dispatch.h"
#include "headloom/mechanisms/h_transformer/h_transformer_sums.h"
#include "headloom/tensor/dispatch.h"
#include "headloom/tensor/gradients.h"

// P ranks, C tokens of this one, R block size, F = D + E + 1: a key, its value and its count.
namespace headloom {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Shards = std::shared_ptr<HAttentionShards>;

constexpr const char* kWhere = "h_attention_sharded";

// Keeps what autograd's saved data can hold.
struct Held : torch::CustomClassHolder {
  Shards shards;
  HAttentionCall call;
  Held(Shards given, HAttentionCall given_call)
      : shards(std::move(given)), call(std::move(given_call)) {}
};

c10::intrusive_ptr<Held> held(AutogradContext* ctx) {
  return c10::static_intrusive_pointer_cast<Held>(ctx->saved_data["held"].toCapsule());
}

// All messages of a call at once, so that every rank meets the others in the same order backward.
struct Share : torch::autograd::Function<Share> {
  static variable_list forward(AutogradContext* ctx, const Tensor& before, const Tensor& after,
                               const Tensor& own, const c10::intrusive_ptr<Held>& with) {
    ctx->saved_data["held"] = c10::IValue::make_capsule(with);
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({before, own});
    const bool causal = with->call.causal;
    Tensor from_before = at::zeros_like(before), from_after = at::zeros_like(before);
    if (before.numel() > 0) {
      const auto from = with->shards->exchange({causal ? Tensor() : before, after});
      from_before = from.before;
      if (!causal) from_after = from.after;
    }
    return {from_before, from_after, with->shards->gather(own)};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto with = held(ctx);
    const auto saved = ctx->get_saved_variables();
    const auto dense = [](const Tensor& grad, const Tensor& like) {
      return grad.defined() ? grad.contiguous() : at::zeros_like(like);
    };
    const bool causal = with->call.causal;
    Tensor grad_before = at::zeros_like(saved[0]), grad_after = at::zeros_like(saved[0]);
    if (saved[0].numel() > 0) {
      // Gradients of what came from before go back there.
      const auto from = with->shards->exchange(
          {dense(grads[0], saved[0]), causal ? Tensor() : dense(grads[1], saved[0])});
      if (!causal) grad_before = from.before;
      grad_after = from.after;
    }
    std::vector<int64_t> sizes = saved[1].sizes().vec();
    sizes.insert(sizes.begin(), with->shards->ranks());
    const Tensor all =
        grads[2].defined() ? grads[2].contiguous() : at::zeros(sizes, saved[1].options());
    const Tensor grad_own = with->shards->sum(all).select(0, with->shards->rank());
    return {grad_before, grad_after, grad_own, Tensor()};
  }
};

// The output, depending on every message also where it used none, as that of the first rank may:
// its neighbours wait for it backward.
struct After : torch::autograd::Function<After> {
  static Tensor forward(AutogradContext*, const Tensor& out, const Tensor&, const Tensor&,
                        const Tensor&) {
    return out.view_as(out);
  }
  static variable_list backward(AutogradContext*, variable_list grads) {
    return {grads[0], Tensor(), Tensor(), Tensor()};
  }
};

// The part's own keys by the kernels, with the logarithm of the sum, both differentiable. A column
// of ones beside v carries the latter's gradient: its derivative by a logit is the weight, which is
// what a value of one gets.
struct OwnPart : torch::autograd::Function<OwnPart> {
  static variable_list forward(AutogradContext* ctx, const Tensor& q, const Tensor& k,
                               const Tensor& v, const std::optional<Tensor>& bias,
                               const c10::intrusive_ptr<Held>& with) {
    const at::AutoDispatchBelowADInplaceOrView below;
    HAttentionCall call = with->call;
    call.bias = bias;
    const auto [out, log2_sum] = call_h_attention_forward(q, k, v, call);
    ctx->saved_data["held"] = c10::IValue::make_capsule(with);
    ctx->save_for_backward({q, k, v, value_or_undefined(bias), out, log2_sum});
    return {out, log2_sum * std::log(2.0)};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &q = saved[0], &k = saved[1], &v = saved[2], &bias = saved[3], &out = saved[4];
    HAttentionCall call = held(ctx)->call;
    call.bias = as_optional(bias);
    const auto beside = [](const Tensor& x, const Tensor& column) {
      return at::cat({x, column.to(x.scalar_type()).unsqueeze(-1)}, -1);
    };
    const Tensor one = at::ones(saved[5].sizes(), v.options());
    const HAttentionWanted wanted{true, true, true, bias.defined() && ctx->needs_input_grad(3)};
    static const Operator<HAttentionOp, HAttentionBackward> op("h_attention_backward");
    const auto [grad_q, grad_k, grad_v, grad_bias] =
        op(beside(grads[0], grads[1]), q, k, beside(v, one), beside(out, at::zeros_like(one)),
           saved[5], wanted, call);
    return {grad_q, grad_k, grad_v.narrow(-1, 0, v.size(-1)), or_undefined(grad_bias, wanted[3]),
            Tensor()};
  }
};

// Rows of one level of the part: q [B, H, n, D], and keys, values and counts as one [B, H, n, F].
struct Rows {
  Tensor q, q_count, keys;
};

std::pair<Tensor, Tensor> children(const Tensor& x) {
  const Tensor pairs = x.unflatten(2, {x.size(2) / 2, 2});
  return {pairs.select(3, 0), pairs.select(3, 1)};
}

Tensor coarsen_keys(const Tensor& keys) {
  const auto [first, second] = children(keys);
  const int64_t width = keys.size(3) - 1;
  const Tensor a = first.narrow(3, width, 1), b = second.narrow(3, width, 1);
  const Tensor mean =
      (first.narrow(3, 0, width) * a + second.narrow(3, 0, width) * b) / (a + b).clamp_min(1);
  return at::cat({mean, a + b}, 3);
}

Rows coarsen(const Rows& x, bool causal) {
  const auto [first, second] = children(x.q);
  const auto [a, b] = children(x.q_count);
  const Tensor q =
      causal ? at::where(a > 0, first, second) : (first * a + second * b) / (a + b).clamp_min(1);
  return {q, a + b, coarsen_keys(x.keys)};
}

Rows tokens(const Tensor& q, const Tensor& k, const Tensor& v, const HAttentionCall& call) {
  const at::ScalarType type = accumulation_type(q);
  const auto count = [&](const std::optional<Tensor>& padding) {
    const auto options = q.options().dtype(type);
    if (!padding) return at::ones({q.size(0), q.size(1), q.size(2), 1}, options);
    return padding->logical_not().to(type).unsqueeze(1).unsqueeze(-1).expand(
        {q.size(0), q.size(1), q.size(2), 1});
  };
  const auto& hidden = call.query_padding_mask ? call.query_padding_mask : call.key_padding_mask;
  const Tensor key_count = count(call.key_padding_mask), query_count = count(hidden);
  const auto there = [](const Tensor& x, const Tensor& counts) {
    return x.masked_fill(counts == 0, 0.0);
  };
  return {there(q.to(type), query_count) * h_attention_scale(q, call), query_count,
          at::cat({there(k.to(type), key_count), there(v.to(type), key_count), key_count}, 3)};
}

// What the queries of a block see of the block before it (side -1) or after it (1). `row` is the
// first query's place in its block; rows may be a part of the block.
HAttentionSums look(const Tensor& q, const Tensor& keys, int level, int side, int64_t row,
                    const HAttentionCall& call) {
  const int64_t block = call.block_size, half = block / 2, width = q.size(3);
  const auto options = at::TensorOptions().dtype(at::kLong).device(q.device());
  const Tensor rows = at::arange(row, row + q.size(2), options).unsqueeze(1);
  const Tensor columns = at::arange(block, options);
  Tensor logits = at::matmul(q, keys.narrow(3, 0, width).transpose(-2, -1));
  logits = logits + keys.select(3, keys.size(3) - 1).log().unsqueeze(2);
  if (call.bias) {
    const Tensor offset = columns - rows + side * block + 2 * block - 1;
    logits = logits + call.bias->to(q.scalar_type())
                          .index_select(1, offset.view(-1))
                          .view({-1, q.size(2), block});
  }
  if (level > 0) {
    const Tensor covered =
        side < 0 ? (rows < half) & (columns >= half) : (rows >= half) & (columns < half);
    logits = logits.masked_fill(covered, -std::numeric_limits<double>::infinity());
  }
  const Tensor maximum =
      std::get<0>(logits.detach().max(-1, true)).clamp_min(std::numeric_limits<float>::lowest());
  const Tensor weights = (logits - maximum).exp();
  const Tensor values = keys.narrow(3, width, keys.size(3) - 1 - width);
  const HAttentionSums seen{maximum, weights.sum(-1, true), at::matmul(weights, values)};
  const auto per_token = [&](const Tensor& x) { return x.repeat_interleave(1 << level, 2); };
  return {per_token(seen.maximum), per_token(seen.weight), per_token(seen.value)};
}

// Adds sums of some consecutive tokens.
void add_rows(HAttentionSums& sums, int64_t begin, const HAttentionSums& more) {
  const int64_t count = more.weight.size(2), end = begin + count, time = sums.weight.size(2);
  HAttentionSums part = sums.rows(begin, count);
  part.add(more);
  const auto put = [&](const Tensor& whole, const Tensor& middle) {
    return at::cat({whole.narrow(2, 0, begin), middle, whole.narrow(2, end, time - end)}, 2);
  };
  sums = {put(sums.maximum, part.maximum), put(sums.weight, part.weight),
          put(sums.value, part.value)};
}

// Levels at which this rank is one block or a part of one. `rows` is level `level`, all [P, B, H,
// R, F] its keys on all ranks.
void add_upper(HAttentionSums& sums, Rows rows, const Tensor& all, int level, int64_t rank,
               const HAttentionCall& call) {
  Tensor keys = all.permute({1, 2, 0, 3, 4}).flatten(2, 3);  // [B, H, P R, F]
  const int64_t block = call.block_size;
  for (int64_t place = rank * block; keys.size(2) >= 2 * block; ++level) {
    const int64_t own = place / block;  // block of the whole level
    for (const int side : {-1, 1}) {
      const int64_t other = own + side;
      if (other < 0 || other >= keys.size(2) / block || (call.causal && side > 0)) continue;
      sums.add(
          look(rows.q, keys.narrow(2, other * block, block), level, side, place % block, call));
    }
    if (keys.size(2) == 2 * block) break;
    rows = coarsen(rows, call.causal);
    keys = coarsen_keys(keys);
    place /= 2;
  }
}

int level_of_part(int64_t time, int64_t block) {
  int level = 0;
  while ((block << level) < time) ++level;
  return level;
}

void check(const Tensor& q, const Tensor& k, const Tensor& v, const HAttentionCall& call,
           int64_t ranks) {
  check_h_attention(q, k, v, call);
  const int64_t time = q.size(2), block = call.block_size;
  HEADLOOM_CHECK(time > 0 && (block << level_of_part(time, block)) == time, kWhere,
                 cat("block_size ", block, " times a power of two tokens on each rank"), cat(time));
  HEADLOOM_CHECK(ranks > 0 && (ranks & (ranks - 1)) == 0 && 2 * block % ranks == 0, kWhere,
                 cat("a power of two of ranks that divides 2 * block_size = ", 2 * block),
                 cat(ranks));
  HEADLOOM_CHECK(!call.fine && !call.cu_seqlens && !call.center_keys && call.dropout_p == 0.0,
                 kWhere, "coarse queries, no cu_seqlens, center_keys or dropout", "one of them");
}

}  // namespace

Tensor h_attention_sharded(const Tensor& q, const Tensor& k, const Tensor& v,
                           const HAttentionOptions& options, const Shards& shards) {
  const HAttentionCall call = h_attention_call(options);
  check(q, k, v, call, shards->ranks());
  const auto with = c10::make_intrusive<Held>(shards, call);
  const int64_t time = q.size(2), block = call.block_size;
  const int top = level_of_part(time, block);

  std::vector<Rows> levels{tokens(q, k, v, call)};
  for (int l = 0; l < top; ++l) levels.push_back(coarsen(levels.back(), call.causal));
  std::vector<Tensor> first{levels[0].keys.narrow(2, 0, 0)}, last = first;
  for (int l = 0; l < top; ++l) {
    first.push_back(levels[l].keys.narrow(2, 0, block));
    last.push_back(levels[l].keys.narrow(2, (time >> l) - block, block));
  }
  const variable_list from =
      Share::apply(at::cat(first, 2), at::cat(last, 2), levels[top].keys.contiguous(), with);

  const variable_list own = OwnPart::apply(q, k, v, call.bias, with);
  const Tensor log_sum = own[1].unsqueeze(-1);
  const Tensor maximum = log_sum.detach().clamp_min(std::numeric_limits<float>::lowest());
  const Tensor weight = (log_sum - maximum).exp();
  HAttentionSums sums{maximum, weight, own[0].to(weight.scalar_type()) * weight};
  for (int l = 0; l < top; ++l) {
    const int64_t rows = time >> l;
    const auto side = [&](size_t which) { return from[which].narrow(2, l * block, block); };
    add_rows(sums, 0, look(levels[l].q.narrow(2, 0, block), side(0), l, -1, 0, call));
    if (call.causal) continue;
    add_rows(sums, time - (block << l),
             look(levels[l].q.narrow(2, rows - block, block), side(1), l, 1, 0, call));
  }
  add_upper(sums, levels[top], from[2], top, shards->rank(), call);
  const Tensor none = (sums.weight == 0) | (levels[0].q_count == 0);
  const Tensor out = sums.value / sums.weight.masked_fill(none, 1.0);
  return After::apply(out.masked_fill(none, 0.0).to(q.scalar_type()), from[0], from[1], from[2]);
}

}  // namespace headloom

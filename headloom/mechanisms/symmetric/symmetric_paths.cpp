// The ways a call is computed. On the processor, the tile engine with the coefficients folded into
// each tile of queries, or its half-tile form where scores are symmetric. Elsewhere, torch's fused
// attention with folded coefficients, and the reference when there is dropout.
#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "headloom/base/parallel.h"
#include "headloom/mechanisms/attention_call.h"
#include "headloom/mechanisms/symmetric/symmetric_dispatch.h"
#include "headloom/mechanisms/symmetric/symmetric_reference.h"
#include "headloom/tensor/contract.h"
#include "headloom/tensor/dispatch.h"
#include "headloom/tensor/gradients.h"

namespace headloom {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

constexpr const char* kOp = "symmetric_attention";

double scale_of(const Tensor& q, const SymmetricCall& call) {
  return call.scale.value_or(1.0 / std::sqrt(static_cast<double>(q.size(3))));
}

Tensor symmetric_part(const Tensor& pairwise) {
  return (pairwise + pairwise.transpose(1, 2)) * 0.5;
}

// The coefficients that act, or an undefined tensor.
Tensor acting(const Tensor& pairwise, const SymmetricCall& call) {
  return pairwise.defined() && call.symmetrize ? symmetric_part(pairwise) : pairwise;
}

// The call as the tile engine takes it, on the processor.
AttentionCall engine_call(const Tensor& q, const Tensor& v, const OptionalTensor& pairwise,
                          const SymmetricCall& call) {
  AttentionCall one;
  one.q = q;
  if (call.k) {
    one.k = *call.k;
    one.q = fold_queries(q, {}, v.size(1));  // a head's gradient of q needs a place of its own
  }
  one.v = v;
  if (pairwise) one.fold = acting(pairwise->to(accumulation_type(q)), call);
  one.bias = value_or_undefined(call.bias);
  one.key_padding_mask = value_or_undefined(call.key_padding_mask);
  one.causal = call.causal;
  one.scale = scale_of(q, call);
  one.dropout_p = call.dropout_p;
  one.symmetric = uses_half_tiles(q, v, pairwise.has_value(), call);
  one.packed = call.cu_seqlens.has_value();
  const Tensor seed = value_or_undefined(call.seed);
  if (one.packed) {
    const auto bounds = read_boundaries(kOp, "cu_seqlens", *call.cu_seqlens, q.size(2));
    one.sequences = packed_sequences(bounds, bounds, call.dropout_p, seed);
  } else {
    one.sequences = whole_sequences(q.size(0), q.size(2), v.size(2), call.dropout_p, seed);
  }
  return one;
}

// Sums over the heads that share a head of q.
Tensor gather_heads(const Tensor& grad_q, const Tensor& q) {
  if (grad_q.size(1) == q.size(1)) return grad_q;
  return grad_q.unflatten(1, {q.size(1), grad_q.size(1) / q.size(1)}).sum(2);
}

SymmetricGradients engine_backward(const Tensor& grad_out, const Tensor& q, const Tensor& v,
                                   const OptionalTensor& pairwise, const Tensor& out,
                                   const Tensor& log2_sum, bool bias_gradient,
                                   const SymmetricCall& call) {
  const AttentionCall one = engine_call(q, v, pairwise, call);
  const AttentionGradients found = tile_attention_backward(one, grad_out, out, log2_sum);
  Tensor fold = found.fold, grad_bias;
  // The half-tile form returns the symmetric part.
  if (pairwise) fold = (call.symmetrize ? symmetric_part(fold) : fold).to(pairwise->scalar_type());
  if (bias_gradient) grad_bias = tile_attention_bias_backward(one, grad_out, out, log2_sum);
  return {gather_heads(found.q, q), found.v, or_empty(fold, q), or_empty(found.k, q),
          or_empty(grad_bias, q)};
}

// One sequence of a packed call, as a call of its own.
struct Part {
  SymmetricInputs x;
  SymmetricCall call;
};
Part part_of(const SymmetricInputs& x, const SymmetricCall& call, int64_t sequence, int64_t begin,
             int64_t end) {
  Part part{x, call};
  part.x.q = x.q.slice(2, begin, end);
  part.x.v = x.v.slice(2, begin, end);
  part.call.cu_seqlens.reset();
  if (call.key_padding_mask)
    part.call.key_padding_mask = call.key_padding_mask->slice(1, begin, end);
  // Sequences must not share a dropout mask.
  if (call.seed) part.call.seed = *call.seed + sequence;
  return part;
}

// road(x, call) for each sequence of the call, joined along time.
template <class Road>
Tensor for_each_sequence(const SymmetricInputs& x, const SymmetricCall& call, const Road& road) {
  if (!call.cu_seqlens) return road(x, call);
  const auto bounds = read_boundaries(kOp, "cu_seqlens", *call.cu_seqlens, x.q.size(2));
  std::vector<Tensor> parts{at::empty({x.q.size(0), x.v.size(1), 0, x.v.size(3)}, x.q.options())};
  for (size_t s = 0; s + 1 < bounds.size(); ++s) {
    const Part part = part_of(x, call, static_cast<int64_t>(s), bounds[s], bounds[s + 1]);
    parts.push_back(road(part.x, part.call));
  }
  return at::cat(parts, 2);
}

// Additive mask [B or 1, H or 1, T, Tk] of everything that hides keys, and the rows that see none,
// [B or 1, 1, T, 1], which it leaves open: their softmax would be NaN.
struct Mask {
  Tensor additive, blind;
};
Mask mask_of(const SymmetricInputs& x, const SymmetricCall& call) {
  const int64_t queries = x.q.size(2), keys = x.v.size(2);
  const auto here = x.q.options();
  Tensor hidden = at::zeros({1, 1, queries, keys}, here.dtype(at::kBool));
  if (call.causal) {
    hidden = at::ones({queries, keys}, here.dtype(at::kBool)).triu(keys - queries + 1);
    hidden = hidden.view({1, 1, queries, keys});
  }
  if (call.key_padding_mask) {
    hidden = hidden.logical_or(call.key_padding_mask->unsqueeze(1).unsqueeze(1));
  }
  const Tensor blind = hidden.all(-1, /*keepdim=*/true);
  Tensor additive = x.bias.defined() ? x.bias : at::zeros({}, here);
  additive = additive.masked_fill(hidden.logical_and(blind.logical_not()),
                                  -std::numeric_limits<double>::infinity());
  return {additive, blind};
}

Tensor folded_sequence(const SymmetricInputs& x, const SymmetricCall& call) {
  const int64_t heads = x.v.size(1);
  if (x.v.size(2) == 0)
    return at::zeros({x.q.size(0), heads, x.q.size(2), x.v.size(3)}, x.q.options());
  const Tensor q = fold_queries(x.q, acting(x.pairwise, call), heads);
  const Tensor k = fold_queries(x.k.defined() ? x.k : x.q, {}, heads);
  const double scale = scale_of(x.q, call);
  const bool plain = !x.bias.defined() && !call.key_padding_mask;
  if (plain && (!call.causal || q.size(2) == k.size(2))) {
    return at::scaled_dot_product_attention(q, k, x.v, std::nullopt, 0.0, call.causal, scale);
  }
  const Mask mask = mask_of(x, call);
  return at::scaled_dot_product_attention(q, k, x.v, mask.additive, 0.0, false, scale)
      .masked_fill(mask.blind, 0.0);
}

Tensor composite_sequence(const SymmetricInputs& x, const SymmetricCall& call) {
  return symmetric_reference(
      x.q, x.v,
      {acting(x.pairwise, call), x.k, x.bias, value_or_undefined(call.key_padding_mask),
       call.causal, scale_of(x.q, call), call.dropout_p, value_or_undefined(call.seed)});
}

// What devices other than the processor run.
Tensor elsewhere(const SymmetricInputs& x, const SymmetricCall& call) {
  return call.dropout_p > 0.0 ? symmetric_composite(x, call) : symmetric_folded(x, call);
}

}  // namespace

// The form pays from the second tile of queries on (docs/performance/attention_engine.md), and only
// when the heads, which are its units of work, keep all threads busy: the whole form has smaller
// units.
bool uses_half_tiles(const Tensor& q, const Tensor& v, bool has_pairwise,
                     const SymmetricCall& call) {
  if (call.k || call.causal || call.bias || (has_pairwise && !call.symmetrize)) return false;
  if (q.size(2) <= kernels::kQueryTile) return false;
  const int64_t sequences = call.cu_seqlens ? call.cu_seqlens->size(0) - 1 : q.size(0);
  const int64_t units = sequences * v.size(1), threads = thread_count();
  const int64_t rounds = (units + threads - 1) / threads;
  return units * 10 >= rounds * threads * 9;
}

SymmetricHalves symmetric_forward(const Tensor& q, const Tensor& v, const OptionalTensor& pairwise,
                                  const SymmetricCall& call) {
  if (q.device().is_cpu()) return tile_attention(engine_call(q, v, pairwise, call));
  const SymmetricInputs x{q, v, value_or_undefined(pairwise), value_or_undefined(call.k),
                          value_or_undefined(call.bias)};
  return {elsewhere(x, call).contiguous(),
          at::zeros({q.size(0), v.size(1), q.size(2)}, q.options().dtype(accumulation_type(q)))};
}

SymmetricGradients symmetric_backward(const Tensor& grad_out, const Tensor& q, const Tensor& v,
                                      const OptionalTensor& pairwise, const Tensor& out,
                                      const Tensor& log2_sum, bool bias_gradient,
                                      const SymmetricCall& call) {
  if (q.device().is_cpu()) {
    return engine_backward(grad_out, q, v, pairwise, out, log2_sum, bias_gradient, call);
  }
  const auto found = gradients_of(
      [&](const std::vector<Tensor>& x) {
        return elsewhere({x[0], x[1], x[2], x[3], x[4]}, call);
      },
      {q, v, value_or_undefined(pairwise), value_or_undefined(call.k),
       value_or_undefined(call.bias)},
      {true, true, pairwise.has_value(), call.k.has_value(), bias_gradient}, grad_out);
  const auto dense = [&](const Tensor& x) { return x.defined() ? x.contiguous() : or_empty(x, q); };
  return {dense(found[0]), dense(found[1]), dense(found[2]), dense(found[3]), dense(found[4])};
}

Tensor symmetric_folded(const SymmetricInputs& x, const SymmetricCall& call) {
  return for_each_sequence(x, call, folded_sequence);
}

Tensor symmetric_composite(const SymmetricInputs& x, const SymmetricCall& call) {
  return for_each_sequence(x, call, composite_sequence);
}

}  // namespace headloom

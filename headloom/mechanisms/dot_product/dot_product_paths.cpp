// The two ways a call is computed: the tile engine on the processor, and elsewhere tiles of queries
// through the reference, packed batches as one call a sequence.
#include "headloom/mechanisms/dot_product/dot_product_dispatch.h"

#include <ATen/ATen.h>

#include <cmath>
#include <functional>

#include "headloom/base/check.h"
#include "headloom/mechanisms/attention_call.h"
#include "headloom/mechanisms/dot_product/dot_product_reference.h"
#include "headloom/tensor/contract.h"
#include "headloom/tensor/dispatch.h"
#include "headloom/tensor/gradients.h"

namespace headloom {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

constexpr const char* kOp = "dot_product_attention";
constexpr double kLog2E = 0x1.71547652b82fep0;
// Elements of one tile of logits: 1 MiB of float32. The graph of a tile's backward pass holds some
// thirty tensors of that size at once.
constexpr int64_t kTileElements = int64_t{1} << 18;

double scale_of(const Tensor& q, const DotProductCall& call) {
  return call.scale.value_or(1.0 / std::sqrt(static_cast<double>(q.size(3))));
}

DotProductRows rows_of(const Tensor& q, const DotProductCall& call, int64_t begin, int64_t rows) {
  DotProductRows part;
  if (call.bias) {
    part.bias = call.bias->dim() >= 2 && call.bias->size(-2) != 1
                    ? call.bias->narrow(-2, begin, rows)
                    : *call.bias;
  }
  part.key_padding_mask = value_or_undefined(call.key_padding_mask);
  part.causal = call.causal;
  part.scale = scale_of(q, call);
  part.dropout_p = call.dropout_p;
  part.seed = value_or_undefined(call.seed);
  part.queries = q.size(2);
  part.row_begin = begin;
  return part;
}

// One sequence of a packed batch, as a call of its own.
struct Packed {
  std::vector<int64_t> queries, keys;  // boundaries, [S + 1]

  Packed(const Tensor& q, const Tensor& k, const DotProductCall& call)
      : queries(read_boundaries(kOp, "cu_seqlens_q", *call.cu_seqlens_q, q.size(2))),
        keys(read_boundaries(kOp, "cu_seqlens_k", *call.cu_seqlens_k, k.size(2))) {
    HEADLOOM_CHECK(queries.size() == keys.size(), kOp,
                   cat("cu_seqlens_k for ", queries.size() - 1, " sequences"),
                   cat(keys.size() - 1));
  }
  size_t size() const { return queries.size() - 1; }
  Tensor query_part(const Tensor& x, size_t s) const {
    return x.narrow(2, queries[s], queries[s + 1] - queries[s]);
  }
  Tensor key_part(const Tensor& x, size_t s) const {
    return x.narrow(2, keys[s], keys[s + 1] - keys[s]);
  }
  DotProductCall part(const DotProductCall& call, size_t s) const {
    DotProductCall one = call;
    one.cu_seqlens_q.reset();
    one.cu_seqlens_k.reset();
    if (call.key_padding_mask) {
      one.key_padding_mask = call.key_padding_mask->narrow(1, keys[s], keys[s + 1] - keys[s]);
    }
    // Sequences must not share a dropout mask.
    if (call.seed) one.seed = *call.seed + static_cast<int64_t>(s);
    return one;
  }
};

// The call as the tile engine takes it, on the processor.
AttentionCall engine_call(const Tensor& q, const Tensor& k, const Tensor& v,
                          const DotProductCall& call) {
  AttentionCall one;
  one.q = q;
  one.k = k;
  one.v = v;
  one.bias = value_or_undefined(call.bias);
  one.key_padding_mask = value_or_undefined(call.key_padding_mask);
  one.causal = call.causal;
  one.scale = scale_of(q, call);
  one.dropout_p = call.dropout_p;
  const Tensor seed = value_or_undefined(call.seed);
  one.packed = call.cu_seqlens_q.has_value();
  if (one.packed) {
    const Packed packed(q, k, call);
    one.sequences = packed_sequences(packed.queries, packed.keys, call.dropout_p, seed);
  } else {
    one.sequences = whole_sequences(q.size(0), q.size(2), k.size(2), call.dropout_p, seed);
  }
  return one;
}

// Calls body(begin, rows) for tiles of queries that keep the logits within kTileElements.
void for_query_tiles(const Tensor& q, const Tensor& k,
                     const std::function<void(int64_t, int64_t)>& body) {
  const int64_t row = std::max<int64_t>(1, q.size(0) * q.size(1) * k.size(2));
  const int64_t tile = std::max<int64_t>(1, kTileElements / row);
  for (int64_t begin = 0; begin < q.size(2); begin += tile) {
    body(begin, std::min(tile, q.size(2) - begin));
  }
}

DotProductCall in_type(DotProductCall call, at::ScalarType type) {
  if (call.bias) call.bias = call.bias->to(type);
  return call;
}

DotProductHalves tiled_forward(const Tensor& q, const Tensor& k, const Tensor& v,
                               const DotProductCall& given) {
  const at::ScalarType type = accumulation_type(q);
  const DotProductCall call = in_type(given, type);
  const Tensor wide_k = k.to(type), wide_v = v.to(type);
  const Tensor out = at::empty({q.size(0), q.size(1), q.size(2), v.size(3)}, q.options());
  const Tensor log2_sum = at::empty({q.size(0), q.size(1), q.size(2)}, q.options().dtype(type));
  for_query_tiles(q, k, [&](int64_t begin, int64_t rows) {
    const auto [tile_out, tile_lse] = dot_product_reference(
        q.narrow(2, begin, rows).to(type), wide_k, wide_v, rows_of(q, call, begin, rows));
    out.narrow(2, begin, rows).copy_(tile_out);
    log2_sum.narrow(2, begin, rows).copy_(tile_lse * kLog2E);
  });
  return {out, log2_sum};
}

// A bias that broadcasts over queries gathers the gradients of all tiles; otherwise each tile owns
// rows.
DotProductGradients tiled_backward(const Tensor& grad_out, const Tensor& q, const Tensor& k,
                                   const Tensor& v, const DotProductCall& given,
                                   bool bias_gradient) {
  const at::ScalarType type = accumulation_type(q);
  const DotProductCall call = in_type(given, type);
  const Tensor wide_k = k.to(type), wide_v = v.to(type);
  const Tensor grad_q = at::empty(q.sizes(), q.options());
  const Tensor grad_k = at::zeros(k.sizes(), k.options().dtype(type));
  const Tensor grad_v = at::zeros(v.sizes(), v.options().dtype(type));
  Tensor grad_bias;
  if (bias_gradient) grad_bias = at::zeros(call.bias->sizes(), call.bias->options());
  for_query_tiles(q, k, [&](int64_t begin, int64_t rows) {
    const DotProductRows part = rows_of(q, call, begin, rows);
    const auto attend = [&](const std::vector<Tensor>& x) {
      DotProductRows with_bias = part;
      with_bias.bias = x[3];
      return std::get<0>(dot_product_reference(x[0], x[1], x[2], with_bias));
    };
    const auto found =
        gradients_of(attend, {q.narrow(2, begin, rows).to(type), wide_k, wide_v, part.bias},
                     {true, true, true, bias_gradient}, grad_out.narrow(2, begin, rows).to(type));
    grad_q.narrow(2, begin, rows).copy_(found[0]);
    grad_k.add_(found[1]);
    grad_v.add_(found[2]);
    if (!bias_gradient) return;
    const bool owns_rows = grad_bias.dim() >= 2 && grad_bias.size(-2) != 1;
    (owns_rows ? grad_bias.narrow(-2, begin, rows) : grad_bias).add_(found[3]);
  });
  return {grad_q, grad_k.to(k.scalar_type()), grad_v.to(v.scalar_type()),
          bias_gradient ? grad_bias.to(given.bias->scalar_type()) : or_empty({}, q)};
}

}  // namespace

DotProductHalves dot_product_forward(const Tensor& q, const Tensor& k, const Tensor& v,
                                     const DotProductCall& call) {
  if (q.device().is_cpu()) return tile_attention(engine_call(q, k, v, call));
  if (!call.cu_seqlens_q) return tiled_forward(q, k, v, call);
  const Packed packed(q, k, call);
  const Tensor out = at::empty({q.size(0), q.size(1), q.size(2), v.size(3)}, q.options());
  const Tensor log2_sum =
      at::empty({q.size(0), q.size(1), q.size(2)}, q.options().dtype(accumulation_type(q)));
  for (size_t s = 0; s < packed.size(); ++s) {
    const auto [part_out, part_sum] = tiled_forward(packed.query_part(q, s), packed.key_part(k, s),
                                                    packed.key_part(v, s), packed.part(call, s));
    packed.query_part(out, s).copy_(part_out);
    packed.query_part(log2_sum, s).copy_(part_sum);
  }
  return {out, log2_sum};
}

DotProductGradients dot_product_backward(const Tensor& grad_out, const Tensor& q, const Tensor& k,
                                         const Tensor& v, const Tensor& out, const Tensor& log2_sum,
                                         bool bias_gradient, const DotProductCall& call) {
  if (q.device().is_cpu()) {
    const AttentionCall one = engine_call(q, k, v, call);
    const AttentionGradients found = tile_attention_backward(one, grad_out, out, log2_sum);
    Tensor grad_bias;
    if (bias_gradient) grad_bias = tile_attention_bias_backward(one, grad_out, out, log2_sum);
    return {found.q, found.k, found.v, or_empty(grad_bias, q)};
  }
  if (!call.cu_seqlens_q) return tiled_backward(grad_out, q, k, v, call, bias_gradient);
  const Packed packed(q, k, call);
  const Tensor grad_q = at::empty(q.sizes(), q.options());
  const Tensor grad_k = at::empty(k.sizes(), k.options());
  const Tensor grad_v = at::empty(v.sizes(), v.options());
  for (size_t s = 0; s < packed.size(); ++s) {
    const auto [part_q, part_k, part_v, part_bias] =
        tiled_backward(packed.query_part(grad_out, s), packed.query_part(q, s),
                       packed.key_part(k, s), packed.key_part(v, s), packed.part(call, s), false);
    packed.query_part(grad_q, s).copy_(part_q);
    packed.key_part(grad_k, s).copy_(part_k);
    packed.key_part(grad_v, s).copy_(part_v);
  }
  return {grad_q, grad_k, grad_v, or_empty({}, q)};
}

Tensor dot_product_composite(const Tensor& q, const Tensor& k, const Tensor& v,
                             const DotProductCall& call) {
  if (!call.cu_seqlens_q) {
    return std::get<0>(dot_product_reference(q, k, v, rows_of(q, call, 0, q.size(2))));
  }
  const Packed packed(q, k, call);
  std::vector<Tensor> parts{at::empty({q.size(0), q.size(1), 0, v.size(3)}, q.options())};
  for (size_t s = 0; s < packed.size(); ++s) {
    parts.push_back(dot_product_composite(packed.query_part(q, s), packed.key_part(k, s),
                                          packed.key_part(v, s), packed.part(call, s)));
  }
  return at::cat(parts, 2);
}

}  // namespace headloom

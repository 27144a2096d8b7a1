#include "headloom/mechanisms/attention_call.h"

#include <ATen/ATen.h>

#include <type_traits>

#include "headloom/tensor/dispatch.h"

namespace headloom {
namespace {

using at::Tensor;
using kernels::AttentionArgs;
using kernels::AttentionGradArgs;
using kernels::AttentionSequence;
using kernels::HeadRows;

constexpr const char* kOp = "tile_attention";
constexpr double kLog2E = 0x1.71547652b82fep0;

// The elements of a row must be neighbours; other strides are free.
Tensor with_dense_rows(const Tensor& x) {
  return x.size(-1) <= 1 || x.stride(-1) == 1 ? x : x.contiguous();
}

template <class S>
HeadRows<const S> read_rows(const Tensor& x, int64_t heads) {
  return {static_cast<const S*>(x.const_data_ptr()), x.stride(0), x.stride(1), x.stride(2),
          x.size(1) > 0 ? heads / x.size(1) : 1};
}
template <class S>
HeadRows<S> write_rows(const Tensor& x, int64_t heads) {
  return {static_cast<S*>(x.mutable_data_ptr()), x.stride(0), x.stride(1), x.stride(2),
          x.size(1) > 0 ? heads / x.size(1) : 1};
}

// Tensors in the layout that the kernels read, kept alive for as long as they do.
struct Prepared {
  const AttentionCall& call;
  Tensor q, k, v, fold, fold_transposed, bias, padding;
  int64_t heads;

  explicit Prepared(const AttentionCall& given)
      : call(given),
        q(with_dense_rows(given.q)),
        k(given.k.defined() ? with_dense_rows(given.k) : q),
        v(with_dense_rows(given.v)),
        heads(given.v.size(1)) {
    if (given.fold.defined()) {
      fold = given.fold.contiguous();
      fold_transposed = fold.transpose(1, 2).contiguous();
    }
    if (given.bias.defined()) {
      bias = given.bias.contiguous();
      while (bias.dim() < 4) bias = bias.unsqueeze(0);
    }
    if (given.key_padding_mask.defined()) padding = given.key_padding_mask.contiguous();
  }

  template <class S>
  AttentionArgs<S> args(const Tensor& out, const Tensor& log2_sum) const {
    using T = accumulator_t<S>;
    AttentionArgs<S> args{};
    args.heads = heads;
    args.width = q.size(3);
    args.value_width = v.size(3);
    args.sequences = call.sequences.data();
    args.sequence_count = static_cast<int64_t>(call.sequences.size());
    args.q = read_rows<S>(q, heads);
    args.k = read_rows<S>(k, heads);
    args.v = read_rows<S>(v, heads);
    if (fold.defined()) {
      args.fold = fold.const_data_ptr<T>();
      args.fold_transposed = fold_transposed.const_data_ptr<T>();
    }
    if (bias.defined()) {
      const auto stride = [&](int64_t axis) {
        return bias.size(axis) == 1 ? 0 : bias.stride(axis);
      };
      args.bias = {static_cast<const S*>(bias.const_data_ptr()), stride(0), stride(1), stride(2),
                   stride(3)};
    }
    if (padding.defined()) {
      args.padding = static_cast<const uint8_t*>(padding.const_data_ptr());
      args.padding_stride = padding.size(1);
    }
    args.causal = call.causal;
    args.scale = call.scale;
    args.dropout_p = call.dropout_p;
    args.out = write_rows<S>(out, heads);
    args.log2_sum = {log2_sum.mutable_data_ptr<T>(), log2_sum.stride(0), log2_sum.stride(1), 1, 1};
    return args;
  }
};

// A few queries read keys and values once and compute little beside it; the tile engine still
// transposes and rounds up to a panel of lanes. Up to this many, torch's fused kernel is ahead, 3
// times with a single query (docs/performance/attention_engine.md); in half precision and from here
// on it never is.
constexpr int64_t kFewQueries = 8;

bool torch_is_ahead(const AttentionCall& call) {
  const Tensor &q = call.q, &k = call.k, &v = call.v;
  if (!k.defined() || q.size(2) > kFewQueries || q.element_size() < 4 || q.numel() == 0)
    return false;
  const bool one_query = q.size(2) == 1;  // sees every key, causal or not
  return k.numel() > 0 && !call.packed && call.dropout_p == 0.0 && !call.bias.defined() &&
         !call.key_padding_mask.defined() && (!call.causal || one_query) &&
         q.size(1) == v.size(1) && k.size(1) == v.size(1) && q.size(3) == v.size(3);
}

std::tuple<Tensor, Tensor> torch_attention(const AttentionCall& call) {
  Tensor q = call.q;
  if (call.fold.defined()) q = at::matmul(q.to(call.fold.scalar_type()), call.fold);
  const auto [out, log_sum] = at::_scaled_dot_product_flash_attention_for_cpu(
      with_dense_rows(q), with_dense_rows(call.k), with_dense_rows(call.v), 0.0,
      /*is_causal=*/false, std::nullopt, call.scale);
  return {out.contiguous(), log_sum.mul(kLog2E).contiguous()};
}

uint64_t seed_value(double dropout_p, const Tensor& seed) {
  return dropout_p > 0.0 ? static_cast<uint64_t>(seed.item<int64_t>()) : 0;
}

}  // namespace

std::vector<AttentionSequence> whole_sequences(int64_t batch, int64_t queries, int64_t keys,
                                               double dropout_p, const Tensor& seed) {
  const uint64_t number = seed_value(dropout_p, seed);
  std::vector<AttentionSequence> sequences;
  for (int64_t b = 0; b < batch; ++b) sequences.push_back({b, 0, queries, 0, keys, number});
  return sequences;
}

std::vector<AttentionSequence> packed_sequences(const std::vector<int64_t>& queries,
                                                const std::vector<int64_t>& keys, double dropout_p,
                                                const Tensor& seed) {
  const uint64_t number = seed_value(dropout_p, seed);
  std::vector<AttentionSequence> sequences;
  for (size_t s = 0; s + 1 < queries.size(); ++s) {
    sequences.push_back(
        {0, queries[s], queries[s + 1] - queries[s], keys[s], keys[s + 1] - keys[s], number + s});
  }
  return sequences;
}

std::tuple<Tensor, Tensor> tile_attention(const AttentionCall& call) {
  if (torch_is_ahead(call)) return torch_attention(call);
  const Prepared prepared(call);
  const Tensor &q = prepared.q, &v = prepared.v;
  const Tensor out = at::empty({q.size(0), v.size(1), q.size(2), v.size(3)}, q.options());
  const Tensor log2_sum =
      at::empty({q.size(0), v.size(1), q.size(2)}, q.options().dtype(accumulation_type(q)));
  dispatch_kernel_type(q.scalar_type(), kOp, [&](auto tag) {
    using S = typename decltype(tag)::type;
    const AttentionArgs<S> args = prepared.args<S>(out, log2_sum);
    call.symmetric ? kernels::symmetric_forward(args) : kernels::attention_forward(args);
  });
  return {out, log2_sum};
}

AttentionGradients tile_attention_backward(const AttentionCall& call, const Tensor& grad_out,
                                           const Tensor& out, const Tensor& log2_sum) {
  const Prepared prepared(call);
  const Tensor grad = with_dense_rows(grad_out), output = with_dense_rows(out);
  const bool tied = !call.k.defined();
  AttentionGradients found;
  found.q = at::empty(call.q.sizes(), call.q.options());
  if (!tied) found.k = at::empty(call.k.sizes(), call.k.options());
  found.v = at::empty(call.v.sizes(), call.v.options());
  if (call.fold.defined()) found.fold = at::empty(call.fold.sizes(), call.fold.options());
  dispatch_kernel_type(call.q.scalar_type(), kOp, [&](auto tag) {
    using S = typename decltype(tag)::type;
    AttentionGradArgs<S> args{};
    args.call = prepared.args<S>(output, log2_sum);
    args.grad_out = read_rows<S>(grad, prepared.heads);
    if (!tied) args.grad_q = write_rows<S>(found.q, prepared.heads);
    args.grad_k = write_rows<S>(tied ? found.q : found.k, prepared.heads);
    args.grad_v = write_rows<S>(found.v, prepared.heads);
    if (found.fold.defined()) args.grad_fold = found.fold.mutable_data_ptr<accumulator_t<S>>();
    call.symmetric ? kernels::symmetric_backward(args) : kernels::attention_backward(args);
  });
  return found;
}

Tensor tile_attention_bias_backward(const AttentionCall& call, const Tensor& grad_out,
                                    const Tensor& out, const Tensor& log2_sum) {
  const Prepared prepared(call);
  const Tensor grad = with_dense_rows(grad_out), output = with_dense_rows(out);
  const Tensor found =
      at::zeros(call.bias.sizes(), call.bias.options().dtype(accumulation_type(call.q)));
  dispatch_kernel_type(call.q.scalar_type(), kOp, [&](auto tag) {
    using S = typename decltype(tag)::type;
    AttentionGradArgs<S> args{};
    args.call = prepared.args<S>(output, log2_sum);
    args.grad_out = read_rows<S>(grad, prepared.heads);
    const Tensor& bias = prepared.bias;
    kernels::attention_bias_backward(kernels::AttentionBiasGradArgs<S>{
        args, bias.size(0), bias.size(1), bias.size(2), bias.size(3),
        found.mutable_data_ptr<accumulator_t<S>>()});
  });
  return found.to(call.bias.scalar_type());
}

}  // namespace headloom

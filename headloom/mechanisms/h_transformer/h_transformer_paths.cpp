// The fused kernels on tensors: one problem for each sequence of each head, spread over threads.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "headloom/base/parallel.h"
#include "headloom/base/rng.h"
#include "headloom/kernels/isa_table.h"
#include "headloom/mechanisms/h_transformer/h_transformer_dispatch.h"
#include "headloom/mechanisms/h_transformer/h_transformer_kernels.h"
#include "headloom/tensor/contract.h"
#include "headloom/tensor/dispatch.h"
#include "headloom/tensor/gradients.h"

HEADLOOM_ISA_TABLE(HAttentionTable, h_attention_table)
HEADLOOM_ISA_TABLE(HAttentionGradTable, h_attention_grad_table)

// B batch, H heads, T tokens, D width of queries and keys, E width of values, S sequences.
namespace headloom {
namespace {

using at::Tensor;
using kernels::HAttentionGradProblem;
using kernels::HAttentionProblem;
using kernels::HAttentionShape;

Tensor with_dense_rows(const Tensor& x) {
  return x.stride(3) == 1 ? x : x.contiguous();
}

// Everything that the problems of one call share. Problem number (s B + b) H + h.
struct Problems {
  const HAttentionCall& call;
  Tensor q, k, v;
  Tensor key_padding, query_padding;  // [B, T], undefined when there is none
  Tensor bias;                        // [H, as kernels want it]
  Tensor key_mean;                    // [S, B, H, D]
  std::vector<int64_t> bounds;
  at::ScalarType type;

  Problems(const Tensor& queries, const Tensor& keys, const Tensor& values,
           const HAttentionCall& given)
      : call(given),
        q(with_dense_rows(queries)),
        k(with_dense_rows(keys)),
        v(with_dense_rows(values)),
        bounds(h_attention_bounds(queries, given)),
        type(accumulation_type(queries)) {
    if (call.key_padding_mask) key_padding = call.key_padding_mask->contiguous();
    query_padding = call.query_padding_mask ? call.query_padding_mask->contiguous() : key_padding;
    if (call.bias) {
      bias = at::constant_pad_nd(call.bias->to(type).flip(1) / std::log(2.0),
                                 {kernels::kHAttentionBiasMargin, kernels::kHAttentionBiasMargin})
                 .contiguous();
    }
    if (call.center_keys) find_means();
  }

  int64_t heads() const { return q.size(0) * q.size(1); }
  int64_t sequences() const { return static_cast<int64_t>(bounds.size()) - 1; }
  int64_t count() const { return heads() * sequences(); }
  int64_t longest() const {
    int64_t most = 0;
    for (size_t s = 0; s + 1 < bounds.size(); ++s) most = std::max(most, bounds[s + 1] - bounds[s]);
    return most;
  }
  HAttentionShape shape_of(int64_t time) const {
    return kernels::h_attention_shape(time, call.block_size, q.size(3), v.size(3), call.causal,
                                      call.fine);
  }
  int64_t mask_rows(const HAttentionShape& shape) const {
    int64_t rows = 0;
    for (int l = 0; l < shape.levels; ++l) rows += call.fine ? shape.time : shape.rows(l);
    return rows;
  }

  template <class S>
  void fill(HAttentionProblem<S>& p, int64_t number) const {
    const int64_t s = number / heads(), head = number % heads();
    const int64_t b = head / q.size(1), h = head % q.size(1), begin = bounds[s];
    p.shape = shape_of(bounds[s + 1] - begin);
    p.q = rows<S>(q, b, h, begin, p.q_stride);
    p.k = rows<S>(k, b, h, begin, p.k_stride);
    p.v = rows<S>(v, b, h, begin, p.v_stride);
    p.key_padding = padding(key_padding, b, begin);
    p.query_padding = padding(query_padding, b, begin);
    p.key_mean = key_mean.defined() ? element(p.key_mean, key_mean, number) : nullptr;
    p.bias = bias.defined() ? element(p.bias, bias, h) : nullptr;
    p.scale = static_cast<accumulator_t<S>>(h_attention_scale(q, call) / std::log(2.0));
    p.dropout.active = call.dropout_p > 0.0;
    if (p.dropout.active) {
      p.dropout.seed = static_cast<uint64_t>(call.seed->item<int64_t>() + s);
      p.dropout.threshold = drop_threshold(call.dropout_p);
      p.dropout.kept = 1.0 / (1.0 - call.dropout_p);
      p.dropout.first_row = head * mask_rows(p.shape);
    }
  }

  template <class S>
  static S* rows(const Tensor& x, int64_t b, int64_t h, int64_t begin, int64_t& stride) {
    stride = x.stride(2);
    return static_cast<S*>(x.data_ptr()) + b * x.stride(0) + h * x.stride(1) + begin * x.stride(2);
  }
  template <class S>
  S* rows(const Tensor& x, int64_t number, int64_t& stride) const {
    const int64_t head = number % heads();
    return rows<S>(x, head / q.size(1), head % q.size(1), bounds[number / heads()], stride);
  }

 private:
  static const uint8_t* padding(const Tensor& mask, int64_t b, int64_t begin) {
    if (!mask.defined()) return nullptr;
    return static_cast<const uint8_t*>(mask.const_data_ptr()) + b * mask.size(1) + begin;
  }
  // Row `number` of x with all but the last axis as one.
  template <class T>
  static const T* element(const T*, const Tensor& x, int64_t number) {
    return x.const_data_ptr<T>() + number * x.size(-1);
  }

  void find_means() {
    std::vector<Tensor> means;
    for (size_t s = 0; s + 1 < bounds.size(); ++s) {
      const int64_t length = bounds[s + 1] - bounds[s];
      Tensor part = k.narrow(2, bounds[s], length).to(type), count = at::scalar_tensor(length);
      if (key_padding.defined()) {
        const Tensor hidden = key_padding.narrow(1, bounds[s], length).unsqueeze(1).unsqueeze(-1);
        part = part.masked_fill(hidden, 0.0);
        count = hidden.logical_not().sum(2);
      }
      means.push_back(part.sum(2) / count.clamp_min(1));
    }
    if (!means.empty()) key_mean = at::stack(means).contiguous();
  }
};

// Runs body(number, upper, workers) for all problems; `workers(chunks, step)` runs step(first,
// last, local) over the problem's chunks. Threads take problems when there are enough of them, and
// parts of one sequence after the other when not.
template <class T, class Body>
void for_problems(const Problems& all, bool backward, at::ScalarType type,
                  const HAttentionShape& largest, const Body& body) {
  const auto options = at::TensorOptions().dtype(type);
  const int64_t upper_size = kernels::h_attention_upper_size<T>(largest, backward);
  const int64_t local_size = kernels::h_attention_local_size<T>(largest, backward);
  const bool apart = all.count() >= thread_count() || largest.chunks() <= 1;
  const auto run = [&](int64_t begin, int64_t end) {
    const Tensor upper = at::empty({upper_size}, options);
    const Tensor own = apart ? at::empty({local_size}, options) : Tensor();
    const auto workers = [&](int64_t chunks, const auto& step) {
      if (apart) return step(0, chunks, own.template data_ptr<T>());
      parallel_for(0, chunks, 1, [&](int64_t first, int64_t last) {
        step(first, last, at::empty({local_size}, options).template data_ptr<T>());
      });
    };
    for (int64_t i = begin; i < end; ++i) body(i, upper.template data_ptr<T>(), workers);
  };
  if (apart) {
    parallel_for(0, all.count(), 1, run);
  } else {
    run(0, all.count());
  }
}

template <class S>
void forward(const Problems& all, const Tensor& out, const Tensor& log2_sum) {
  using T = accumulator_t<S>;
  const auto& run = kernels::member_for<S>(kernels::h_attention_table(kernels::active_isa()));
  for_problems<T>(all, false, all.type, all.shape_of(all.longest()),
                  [&](int64_t number, T* upper, const auto& workers) {
                    HAttentionProblem<S> p{};
                    all.fill(p, number);
                    p.upper = upper;
                    p.out = all.rows<S>(out, number, p.out_stride);
                    int64_t stride = 0;
                    p.log2_sum = all.rows<T>(log2_sum, number, stride);
                    const int64_t chunks = p.shape.chunks();
                    workers(chunks, [&](int64_t first, int64_t last, T* local) {
                      run.store(p, first, last, local);
                    });
                    workers(1, [&](int64_t, int64_t, T* local) { run.upper(p, local); });
                    workers(chunks, [&](int64_t first, int64_t last, T* local) {
                      run.attend(p, first, last, local);
                    });
                  });
}

// With fine queries the keys of every level gather from the whole sequence: one chunk.
HAttentionShape backward_shape(HAttentionShape shape) {
  while (shape.fine && shape.chunk < shape.time) shape.chunk *= 2;
  return shape;
}

struct GradientTensors {
  Tensor q, k, v;  // undefined where not wanted
  Tensor bias;     // [problems, as kernels want it]
};

template <class S>
void backward(const Problems& all, const Tensor& grad_out, const Tensor& out,
              const Tensor& log2_sum, const GradientTensors& grads) {
  using T = accumulator_t<S>;
  const auto& run = kernels::member_for<S>(kernels::h_attention_grad_table(kernels::active_isa()));
  for_problems<T>(all, true, all.type, backward_shape(all.shape_of(all.longest())),
                  [&](int64_t number, T* upper, const auto& workers) {
                    HAttentionGradProblem<S> p{};
                    all.fill(p, number);
                    p.shape = backward_shape(p.shape);
                    p.upper = upper;
                    p.out = all.rows<S>(out, number, p.out_stride);
                    int64_t stride = 0;
                    p.log2_sum = all.rows<T>(log2_sum, number, stride);
                    p.grad_out = all.rows<S>(grad_out, number, p.grad_out_stride);
                    if (grads.q.defined()) p.grad_q = all.rows<S>(grads.q, number, p.grad_q_stride);
                    if (grads.k.defined()) p.grad_k = all.rows<S>(grads.k, number, p.grad_k_stride);
                    if (grads.v.defined()) p.grad_v = all.rows<S>(grads.v, number, p.grad_v_stride);
                    if (grads.bias.defined()) {
                      p.grad_bias = grads.bias.data_ptr<T>() + number * grads.bias.size(1);
                    }
                    const int64_t chunks = p.shape.chunks();
                    workers(chunks, [&](int64_t first, int64_t last, T* local) {
                      run.store(p, first, last, local);
                    });
                    workers(1, [&](int64_t, int64_t, T* local) { run.upper(p, local); });
                    // One table of biases for each problem: ranges of chunks would race for it.
                    const bool whole = p.grad_bias != nullptr;
                    workers(whole ? 1 : chunks, [&](int64_t first, int64_t last, T* local) {
                      run.gradients(p, first, whole ? chunks : last, local);
                    });
                  });
}

// What the gradient of the centred keys is for the keys: its mean goes.
void center_gradient(const Problems& all, const Tensor& grad_k) {
  for (size_t s = 0; s + 1 < all.bounds.size(); ++s) {
    const int64_t length = all.bounds[s + 1] - all.bounds[s];
    const Tensor part = grad_k.narrow(2, all.bounds[s], length);
    if (!all.key_padding.defined()) {
      if (length > 0) part.sub_(part.to(all.type).mean(2, true).to(part.scalar_type()));
      continue;
    }
    const Tensor hidden =
        all.key_padding.narrow(1, all.bounds[s], length).unsqueeze(1).unsqueeze(-1);
    const Tensor count = hidden.logical_not().sum(2, true).clamp_min(1);
    part.sub_((part.to(all.type).sum(2, true) / count).to(part.scalar_type()));
    part.masked_fill_(hidden, 0.0);
  }
}

}  // namespace

HAttentionHalves h_attention_forward(const Tensor& q, const Tensor& k, const Tensor& v,
                                     const HAttentionCall& call) {
  const Problems all(q, k, v, call);
  const Tensor out = at::empty({q.size(0), q.size(1), q.size(2), v.size(3)}, q.options());
  const Tensor log2_sum =
      at::empty({q.size(0), q.size(1), q.size(2), 1}, q.options().dtype(all.type));
  if (q.size(2) > 0 && all.heads() > 0) {
    dispatch_kernel_type(q.scalar_type(), "h_attention", [&](auto tag) {
      forward<typename decltype(tag)::type>(all, out, log2_sum);
    });
  }
  return {out, log2_sum.squeeze(-1)};
}

HAttentionGradients h_attention_backward(const Tensor& grad_out, const Tensor& q, const Tensor& k,
                                         const Tensor& v, const Tensor& out, const Tensor& log2_sum,
                                         HAttentionWanted wanted, const HAttentionCall& call) {
  const Problems all(q, k, v, call);
  const auto like = [](const Tensor& x, bool needed) {
    return needed ? at::empty(x.sizes(), x.options()) : Tensor();
  };
  GradientTensors grads{like(q, wanted[0]), like(k, wanted[1]), like(v, wanted[2]), {}};
  if (wanted[3]) {
    grads.bias = at::zeros({all.count(), all.bias.size(1)}, all.bias.options());
  }
  if (q.size(2) > 0 && all.heads() > 0) {
    dispatch_kernel_type(q.scalar_type(), "h_attention", [&](auto tag) {
      backward<typename decltype(tag)::type>(all, with_dense_rows(grad_out), out.contiguous(),
                                             log2_sum.contiguous().unsqueeze(-1), grads);
    });
    if (wanted[1] && call.center_keys) center_gradient(all, grads.k);
  }
  Tensor grad_bias;
  if (wanted[3]) {
    grad_bias = grads.bias.view({-1, q.size(1), all.bias.size(1)})
                    .sum(0)
                    .narrow(1, kernels::kHAttentionBiasMargin, 4 * call.block_size - 1)
                    .flip(1)
                    .to(call.bias->scalar_type())
                    .contiguous();
  }
  return {or_empty(grads.q, q), or_empty(grads.k, q), or_empty(grads.v, q), or_empty(grad_bias, q)};
}

}  // namespace headloom

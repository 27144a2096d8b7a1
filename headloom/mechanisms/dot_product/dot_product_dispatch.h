#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <tuple>

#include "headloom/tensor/operator.h"

// How the public operator, its forward and backward halves and autograd see one call.
namespace headloom {

struct DotProductCall {
  std::optional<at::Tensor> bias, key_padding_mask;
  bool causal;
  std::optional<double> scale;
  double dropout_p;
  std::optional<at::Tensor> seed, cu_seqlens_q, cu_seqlens_k;
};

// The keyword arguments of the schema (tensor/operator.h).
struct DotProductOp {
  using OptionalTensor = std::optional<at::Tensor>;

  static DotProductCall read(const OptionalTensor& bias, const OptionalTensor& key_padding_mask,
                             bool causal, std::optional<double> scale, double dropout_p,
                             const OptionalTensor& seed, const OptionalTensor& cu_seqlens_q,
                             const OptionalTensor& cu_seqlens_k) {
    return {bias, key_padding_mask, causal, scale, dropout_p, seed, cu_seqlens_q, cu_seqlens_k};
  }
  template <class Receiver>
  static auto write(const DotProductCall& call, const Receiver& receive) {
    return receive(call.bias, call.key_padding_mask, call.causal, call.scale, call.dropout_p,
                   call.seed, call.cu_seqlens_q, call.cu_seqlens_k);
  }
};

// Refuses bad arguments. Sizes may be symbolic.
void check_dot_product(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       const DotProductCall& call);

// O, and log2 of the sum of e^logits of each query.
using DotProductHalves = std::tuple<at::Tensor, at::Tensor>;
using DotProductGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

// The positional arguments of the operator and of its two halves. `bias_gradient` says whether the
// bias needs one.
using DotProductPlain = at::Tensor(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);
using DotProductForward = DotProductHalves(const at::Tensor& q, const at::Tensor& k,
                                           const at::Tensor& v);
using DotProductBackward = DotProductGradients(const at::Tensor& grad_out, const at::Tensor& q,
                                               const at::Tensor& k, const at::Tensor& v,
                                               const at::Tensor& out, const at::Tensor& log2_sum,
                                               bool bias_gradient);

// The kernels.
DotProductHalves dot_product_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                     const DotProductCall& call);
DotProductGradients dot_product_backward(const at::Tensor& grad_out, const at::Tensor& q,
                                         const at::Tensor& k, const at::Tensor& v,
                                         const at::Tensor& out, const at::Tensor& log2_sum,
                                         bool bias_gradient, const DotProductCall& call);

// The whole call through the reference, for derivatives of derivatives: O(Tq Tk) memory.
at::Tensor dot_product_composite(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const DotProductCall& call);

// The forward half through torch's dispatcher.
DotProductHalves call_dot_product_forward(const at::Tensor& q, const at::Tensor& k,
                                          const at::Tensor& v, const DotProductCall& call);

}  // namespace headloom

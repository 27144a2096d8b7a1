#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

#include "headloom/tensor/operator.h"

// How the public operator, its forward and backward halves and autograd see one call.
namespace headloom {

struct SymmetricCall {
  std::optional<at::Tensor> k, bias, key_padding_mask;
  bool causal;
  std::optional<at::Tensor> cu_seqlens;
  std::optional<double> scale;
  double dropout_p;
  std::optional<at::Tensor> seed;
  bool symmetrize;
};

// The keyword arguments of the schema (tensor/operator.h).
struct SymmetricOp {
  using OptionalTensor = std::optional<at::Tensor>;

  static SymmetricCall read(const OptionalTensor& k, const OptionalTensor& bias,
                            const OptionalTensor& key_padding_mask, bool causal,
                            const OptionalTensor& cu_seqlens, std::optional<double> scale,
                            double dropout_p, const OptionalTensor& seed, bool symmetrize) {
    return {k, bias, key_padding_mask, causal, cu_seqlens, scale, dropout_p, seed, symmetrize};
  }
  template <class Receiver>
  static auto write(const SymmetricCall& call, const Receiver& receive) {
    return receive(call.k, call.bias, call.key_padding_mask, call.causal, call.cu_seqlens,
                   call.scale, call.dropout_p, call.seed, call.symmetrize);
  }
};

// The tensors that take gradients, in the order of the results of the backward half.
struct SymmetricInputs {
  at::Tensor q, v, pairwise, k, bias;  // the last three may be undefined
};

// O, and log2 of the sum of e^logits of each query (zeros where the path has no use for it).
using SymmetricHalves = std::tuple<at::Tensor, at::Tensor>;
using SymmetricGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

// The positional arguments of the operator and of its two halves. `bias_gradient` says whether the
// bias needs one.
using SymmetricPlain = at::Tensor(const at::Tensor& q, const at::Tensor& v,
                                  const std::optional<at::Tensor>& pairwise);
using SymmetricForward = SymmetricHalves(const at::Tensor& q, const at::Tensor& v,
                                         const std::optional<at::Tensor>& pairwise);
using SymmetricBackward = SymmetricGradients(const at::Tensor& grad_out, const at::Tensor& q,
                                             const at::Tensor& v,
                                             const std::optional<at::Tensor>& pairwise,
                                             const at::Tensor& out, const at::Tensor& log2_sum,
                                             bool bias_gradient);

// Refuses bad arguments. Sizes may be symbolic.
void check_symmetric(const at::Tensor& q, const at::Tensor& v,
                     const std::optional<at::Tensor>& pairwise, const SymmetricCall& call);

// The kernels.
SymmetricHalves symmetric_forward(const at::Tensor& q, const at::Tensor& v,
                                  const std::optional<at::Tensor>& pairwise,
                                  const SymmetricCall& call);
SymmetricGradients symmetric_backward(const at::Tensor& grad_out, const at::Tensor& q,
                                      const at::Tensor& v,
                                      const std::optional<at::Tensor>& pairwise,
                                      const at::Tensor& out, const at::Tensor& log2_sum,
                                      bool bias_gradient, const SymmetricCall& call);

// Whether a call on the processor takes the half-tile form.
bool uses_half_tiles(const at::Tensor& q, const at::Tensor& v, bool has_pairwise,
                     const SymmetricCall& call);

// The whole call by other roads, differentiable by autograd: torch's fused attention with A folded
// into the queries (no dropout), which is what other devices run, and the reference with O(T Tk)
// memory, for derivatives of derivatives.
at::Tensor symmetric_folded(const SymmetricInputs& x, const SymmetricCall& call);
at::Tensor symmetric_composite(const SymmetricInputs& x, const SymmetricCall& call);

}  // namespace headloom

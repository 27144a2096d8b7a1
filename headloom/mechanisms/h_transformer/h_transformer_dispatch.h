#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <functional>
#include <optional>
#include <string_view>
#include <tuple>
#include <vector>

#include "headloom/mechanisms/h_transformer/h_transformer.h"
#include "headloom/tensor/operator.h"

// How the public operator, its halves and autograd see one call.
namespace headloom {

struct HAttentionCall {
  int64_t block_size = 16;
  bool causal = false;
  std::optional<at::Tensor> bias = {}, key_padding_mask = {}, query_padding_mask = {},
                            cu_seqlens = {};
  std::optional<double> scale = {};
  double dropout_p = 0.0;
  std::optional<at::Tensor> seed = {};
  bool fine = false;
  bool center_keys = false;
};

constexpr int64_t kMaxBlockSize = 256;

// "coarse" or "fine" as a flag; refuses other names.
bool is_fine(std::string_view query_mode);

struct HAttentionOp {
  using OptionalTensor = std::optional<at::Tensor>;

  static HAttentionCall read(int64_t block_size, bool causal, const OptionalTensor& bias,
                             const OptionalTensor& key_padding_mask,
                             const OptionalTensor& query_padding_mask,
                             const OptionalTensor& cu_seqlens, std::optional<double> scale,
                             double dropout_p, const OptionalTensor& seed,
                             std::string_view query_mode, bool center_keys) {
    return {block_size, causal,    bias, key_padding_mask,    query_padding_mask, cu_seqlens,
            scale,      dropout_p, seed, is_fine(query_mode), center_keys};
  }
  template <class Receiver>
  static auto write(const HAttentionCall& call, const Receiver& receive) {
    return receive(call.block_size, call.causal, call.bias, call.key_padding_mask,
                   call.query_padding_mask, call.cu_seqlens, call.scale, call.dropout_p, call.seed,
                   call.fine ? "fine" : "coarse", call.center_keys);
  }
};

// O, and log2 of the sum of each query's weights before they are normalised.
using HAttentionHalves = std::tuple<at::Tensor, at::Tensor>;
// Of q, k, v and bias; empty [0] where not wanted.
using HAttentionGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
using HAttentionWanted = std::array<bool, 4>;

using HAttentionPlain = at::Tensor(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);
using HAttentionForward = HAttentionHalves(const at::Tensor& q, const at::Tensor& k,
                                           const at::Tensor& v);
using HAttentionBackward = HAttentionGradients(const at::Tensor& grad_out, const at::Tensor& q,
                                               const at::Tensor& k, const at::Tensor& v,
                                               const at::Tensor& out, const at::Tensor& log2_sum,
                                               HAttentionWanted wanted);

// Refuses bad arguments. Sizes may be symbolic.
void check_h_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       const HAttentionCall& call);
double h_attention_scale(const at::Tensor& q, const HAttentionCall& call);
HAttentionCall h_attention_call(const HAttentionOptions& options);

// The fused kernels of the processor.
HAttentionHalves h_attention_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                     const HAttentionCall& call);
HAttentionGradients h_attention_backward(const at::Tensor& grad_out, const at::Tensor& q,
                                         const at::Tensor& k, const at::Tensor& v,
                                         const at::Tensor& out, const at::Tensor& log2_sum,
                                         HAttentionWanted wanted, const HAttentionCall& call);

// Level by level in torch operations: differentiable, any device, O(T R) memory.
HAttentionHalves h_attention_by_level(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      const HAttentionCall& call);

// The forward half through torch's dispatcher.
HAttentionHalves call_h_attention_forward(const at::Tensor& q, const at::Tensor& k,
                                          const at::Tensor& v, const HAttentionCall& call);

// The sequences of a call, as calls of their own on narrowed tensors; one when it is not packed.
std::vector<int64_t> h_attention_bounds(const at::Tensor& q, const HAttentionCall& call);
HAttentionCall h_attention_part(const HAttentionCall& call, const std::vector<int64_t>& bounds,
                                size_t sequence);

}  // namespace headloom

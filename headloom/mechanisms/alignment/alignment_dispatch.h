#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <string_view>
#include <tuple>

#include "headloom/mechanisms/alignment/sinkhorn_run.h"
#include "headloom/tensor/operator.h"

// How the public operators, their halves and autograd see one call. B, H, M, N as in alignment.h.
namespace headloom {

struct TransportCall {
  double temperature = 1.0, rho = 0.5;
  bool euclidean = false;
  std::optional<at::Tensor> query_mask = {}, key_mask = {};
};

struct SinkhornCall {
  SinkhornOptions options{0.1, false, true, false, false, 200, 1e-5};
  std::optional<at::Tensor> query_mask = {}, key_mask = {};
};

struct DiscrepancyCall {
  double bandwidth = 1.0;
  std::optional<at::Tensor> query_mask = {}, key_mask = {};
};

// A choice of two by name as a flag; refuses other names.
bool is_second(const char* op, const char* key, std::string_view value, const char* first,
               const char* second);

// The keyword arguments of each schema (tensor/operator.h).
struct TransportOp {
  static constexpr const char* kName = "conditional_transport";
  static TransportCall read(double temperature, double rho, std::string_view cost,
                            const std::optional<at::Tensor>& query_mask,
                            const std::optional<at::Tensor>& key_mask) {
    return {temperature, rho, is_second(kName, "cost", cost, "cosine", "euclidean"), query_mask,
            key_mask};
  }
  template <class Receiver>
  static auto write(const TransportCall& call, const Receiver& receive) {
    return receive(call.temperature, call.rho, call.euclidean ? "euclidean" : "cosine",
                   call.query_mask, call.key_mask);
  }
};

struct SinkhornOp {
  static constexpr const char* kName = "sinkhorn_divergence";
  static SinkhornCall read(double eps, std::string_view cost, bool debiased, bool sharp,
                           int64_t max_iter, double tol, std::string_view gradient,
                           const std::optional<at::Tensor>& query_mask,
                           const std::optional<at::Tensor>& key_mask) {
    return {{eps, is_second(kName, "cost", cost, "half_squared", "cosine"), debiased, sharp,
             is_second(kName, "gradient", gradient, "envelope", "implicit"), max_iter, tol},
            query_mask,
            key_mask};
  }
  template <class Receiver>
  static auto write(const SinkhornCall& call, const Receiver& receive) {
    const SinkhornOptions& o = call.options;
    return receive(o.eps, o.cosine ? "cosine" : "half_squared", o.debiased, o.sharp, o.max_iter,
                   o.tol, o.implicit ? "implicit" : "envelope", call.query_mask, call.key_mask);
  }
};

struct DiscrepancyOp {
  static constexpr const char* kName = "maximum_mean_discrepancy";
  static DiscrepancyCall read(double bandwidth, const std::optional<at::Tensor>& query_mask,
                              const std::optional<at::Tensor>& key_mask) {
    return {bandwidth, query_mask, key_mask};
  }
  template <class Receiver>
  static auto write(const DiscrepancyCall& call, const Receiver& receive) {
    return receive(call.bandwidth, call.query_mask, call.key_mask);
  }
};

using Tensor2 = std::tuple<at::Tensor, at::Tensor>;
using Tensor3 = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Tensor4 = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

// The positional arguments. The states are what a forward pass leaves to the backward pass of the
// same device, in the accumulation type: query_state [B, H, M, 3] and key_state [B, H, N, 3];
// potentials [B, H, 2 (M + N)].
using TransportPlain = at::Tensor(const at::Tensor& u, const at::Tensor& v, const at::Tensor& f,
                                  const at::Tensor& g);
using TransportForward = Tensor3(const at::Tensor& u, const at::Tensor& v, const at::Tensor& f,
                                 const at::Tensor& g);
using TransportBackward = Tensor4(const at::Tensor& grad_loss, const at::Tensor& u,
                                  const at::Tensor& v, const at::Tensor& f, const at::Tensor& g,
                                  const at::Tensor& query_state, const at::Tensor& key_state);
using PairPlain = at::Tensor(const at::Tensor& x, const at::Tensor& y);
using SinkhornForward = Tensor3(const at::Tensor& x, const at::Tensor& y);
using SinkhornBackward = Tensor2(const at::Tensor& grad_value, const at::Tensor& x,
                                 const at::Tensor& y, const at::Tensor& potentials);
using DiscrepancyBackward = Tensor2(const at::Tensor& grad_value, const at::Tensor& x,
                                    const at::Tensor& y);

// Refuse bad arguments. Sizes may be symbolic.
void check_transport(const at::Tensor& u, const at::Tensor& v, const at::Tensor& f,
                     const at::Tensor& g, const TransportCall& call);
void check_sinkhorn(const at::Tensor& x, const at::Tensor& y, const SinkhornCall& call);
void check_discrepancy(const at::Tensor& x, const at::Tensor& y, const DiscrepancyCall& call);

// Streaming kernels on the processor.
Tensor3 transport_forward_cpu(const at::Tensor& u, const at::Tensor& v, const at::Tensor& f,
                              const at::Tensor& g, const TransportCall& call);
Tensor4 transport_backward_cpu(const at::Tensor& grad_loss, const at::Tensor& u,
                               const at::Tensor& v, const at::Tensor& f, const at::Tensor& g,
                               const at::Tensor& query_state, const at::Tensor& key_state,
                               const TransportCall& call);
Tensor3 sinkhorn_forward_cpu(const at::Tensor& x, const at::Tensor& y, const SinkhornCall& call);
Tensor2 sinkhorn_backward_cpu(const at::Tensor& grad_value, const at::Tensor& x,
                              const at::Tensor& y, const at::Tensor& potentials,
                              const SinkhornCall& call);
at::Tensor discrepancy_cpu(const at::Tensor& x, const at::Tensor& y, const DiscrepancyCall& call);
Tensor2 discrepancy_backward_cpu(const at::Tensor& grad_value, const at::Tensor& x,
                                 const at::Tensor& y, const DiscrepancyCall& call);

// Torch operations on chunks of queries, on any device, in bounded memory.
Tensor3 transport_forward_chunked(const at::Tensor& u, const at::Tensor& v, const at::Tensor& f,
                                  const at::Tensor& g, const TransportCall& call);
Tensor4 transport_backward_chunked(const at::Tensor& grad_loss, const at::Tensor& u,
                                   const at::Tensor& v, const at::Tensor& f, const at::Tensor& g,
                                   const at::Tensor& query_state, const at::Tensor& key_state,
                                   const TransportCall& call);
Tensor3 sinkhorn_forward_chunked(const at::Tensor& x, const at::Tensor& y,
                                 const SinkhornCall& call);
Tensor2 sinkhorn_backward_chunked(const at::Tensor& grad_value, const at::Tensor& x,
                                  const at::Tensor& y, const at::Tensor& potentials,
                                  const SinkhornCall& call);
at::Tensor discrepancy_chunked(const at::Tensor& x, const at::Tensor& y,
                               const DiscrepancyCall& call);
Tensor2 discrepancy_backward_chunked(const at::Tensor& grad_value, const at::Tensor& x,
                                     const at::Tensor& y, const DiscrepancyCall& call);

}  // namespace headloom

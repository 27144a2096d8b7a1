#pragma once

#include <ATen/core/Tensor.h>

#include "headloom/mechanisms/alignment/alignment_dispatch.h"

// The oracles: plain torch operations, differentiable, on any device. They hold M x N tensors.
namespace headloom {

// Points of weight 0 cleared; weights [B, 1, points], 0 at masked points and where the sample has
// none.
at::Tensor cleared(const at::Tensor& points, const std::optional<at::Tensor>& mask);
at::Tensor weights_of(const at::Tensor& points, const std::optional<at::Tensor>& mask);

// c_ij of alignment.h's costs for transport, [B, H, M, N].
at::Tensor transport_cost(const at::Tensor& f, const at::Tensor& g, bool euclidean);

at::Tensor transport_reference(const at::Tensor& u, const at::Tensor& v, const at::Tensor& f,
                               const at::Tensor& g, const TransportCall& call);

// c_ij of the Sinkhorn costs, [B, H, M, N].
at::Tensor sinkhorn_cost(const at::Tensor& x, const at::Tensor& y, bool cosine);

// Its gradient is the one that the call asks for: plans are constants in it. The implicit one
// solves a dense linear system.
at::Tensor sinkhorn_reference(const at::Tensor& x, const at::Tensor& y, const SinkhornCall& call);

at::Tensor discrepancy_reference(const at::Tensor& x, const at::Tensor& y,
                                 const DiscrepancyCall& call);

}  // namespace headloom

// Schemas of the operators and their halves, argument checks, registration.
#include "headloom/mechanisms/alignment/alignment.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <cmath>

#include "headloom/base/check.h"
#include "headloom/mechanisms/alignment/alignment_dispatch.h"
#include "headloom/tensor/contract.h"
#include "headloom/tensor/dispatch.h"

namespace headloom {
namespace {

using at::Tensor;

// The public operators are their forward halves without what those keep.
Tensor transport(const Tensor& u, const Tensor& v, const Tensor& f, const Tensor& g,
                 const TransportCall& call) {
  static const Operator<TransportOp, TransportForward> op("conditional_transport_forward");
  return std::get<0>(op(u, v, f, g, call));
}
Tensor sinkhorn(const Tensor& x, const Tensor& y, const SinkhornCall& call) {
  static const Operator<SinkhornOp, SinkhornForward> op("sinkhorn_divergence_forward");
  return std::get<0>(op(x, y, call));
}

Tensor3 transport_forward(const Tensor& u, const Tensor& v, const Tensor& f, const Tensor& g,
                          const TransportCall& call) {
  check_transport(u, v, f, g, call);
  return u.is_cpu() ? transport_forward_cpu(u, v, f, g, call)
                    : transport_forward_chunked(u, v, f, g, call);
}
Tensor4 transport_backward(const Tensor& grad_loss, const Tensor& u, const Tensor& v,
                           const Tensor& f, const Tensor& g, const Tensor& query_state,
                           const Tensor& key_state, const TransportCall& call) {
  return u.is_cpu()
             ? transport_backward_cpu(grad_loss, u, v, f, g, query_state, key_state, call)
             : transport_backward_chunked(grad_loss, u, v, f, g, query_state, key_state, call);
}
Tensor3 sinkhorn_forward(const Tensor& x, const Tensor& y, const SinkhornCall& call) {
  check_sinkhorn(x, y, call);
  return x.is_cpu() ? sinkhorn_forward_cpu(x, y, call) : sinkhorn_forward_chunked(x, y, call);
}
Tensor2 sinkhorn_backward(const Tensor& grad_value, const Tensor& x, const Tensor& y,
                          const Tensor& potentials, const SinkhornCall& call) {
  return x.is_cpu() ? sinkhorn_backward_cpu(grad_value, x, y, potentials, call)
                    : sinkhorn_backward_chunked(grad_value, x, y, potentials, call);
}
Tensor discrepancy(const Tensor& x, const Tensor& y, const DiscrepancyCall& call) {
  check_discrepancy(x, y, call);
  return x.is_cpu() ? discrepancy_cpu(x, y, call) : discrepancy_chunked(x, y, call);
}
Tensor2 discrepancy_backward(const Tensor& grad_value, const Tensor& x, const Tensor& y,
                             const DiscrepancyCall& call) {
  return x.is_cpu() ? discrepancy_backward_cpu(grad_value, x, y, call)
                    : discrepancy_backward_chunked(grad_value, x, y, call);
}

Tensor room_for(const Tensor& x) {
  return at::empty_symint(x.sym_sizes(), x.options());
}
Tensor values_like(const Tensor& x) {
  return at::empty_symint({x.sym_size(0), x.sym_size(1)}, x.options());
}
at::TensorOptions wide(const Tensor& x) {
  return x.options().dtype(accumulation_type(x));
}

Tensor3 transport_forward_meta(const Tensor& u, const Tensor& v, const Tensor& f, const Tensor& g,
                               const TransportCall& call) {
  check_transport(u, v, f, g, call);
  const auto state = [&](const Tensor& x) {
    return at::empty_symint({x.sym_size(0), x.sym_size(1), x.sym_size(2), 3}, wide(u));
  };
  return {values_like(u), state(u), state(v)};
}
Tensor4 transport_backward_meta(const Tensor&, const Tensor& u, const Tensor& v, const Tensor& f,
                                const Tensor& g, const Tensor&, const Tensor&,
                                const TransportCall&) {
  return {room_for(u), room_for(v), room_for(f), room_for(g)};
}
Tensor3 sinkhorn_forward_meta(const Tensor& x, const Tensor& y, const SinkhornCall& call) {
  check_sinkhorn(x, y, call);
  const c10::SymInt points = x.sym_size(2) + y.sym_size(2);
  return {values_like(x), at::empty_symint({x.sym_size(0), x.sym_size(1), points * 2}, wide(x)),
          at::empty_symint({x.sym_size(0), x.sym_size(1)}, wide(x))};
}
Tensor2 sinkhorn_backward_meta(const Tensor&, const Tensor& x, const Tensor& y, const Tensor&,
                               const SinkhornCall&) {
  return {room_for(x), room_for(y)};
}
Tensor discrepancy_meta(const Tensor& x, const Tensor& y, const DiscrepancyCall& call) {
  check_discrepancy(x, y, call);
  return values_like(x);
}
Tensor2 discrepancy_backward_meta(const Tensor&, const Tensor& x, const Tensor& y,
                                  const DiscrepancyCall&) {
  return {room_for(x), room_for(y)};
}

void check_pair(Contract& args, const Tensor& x, const Tensor& y,
                const std::optional<Tensor>& query_mask, const std::optional<Tensor>& key_mask) {
  args.floating("x", x, {"B", "H", "M", "D"})
      .same("y", y, {"B", "H", "N", "D"})
      .mask("query_mask", query_mask, {"B", "M"})
      .mask("key_mask", key_mask, {"B", "N"});
}

bool is_positive(double value) {
  return value > 0.0 && std::isfinite(value);
}

void implement(torch::Library& m) {
  m.impl("conditional_transport", &Operator<TransportOp, TransportPlain>::kernel<transport>);
  m.impl("conditional_transport_forward",
         &Operator<TransportOp, TransportForward>::kernel<transport_forward>);
  m.impl("conditional_transport_backward",
         &Operator<TransportOp, TransportBackward>::kernel<transport_backward>);
  m.impl("sinkhorn_divergence", &Operator<SinkhornOp, PairPlain>::kernel<sinkhorn>);
  m.impl("sinkhorn_divergence_forward",
         &Operator<SinkhornOp, SinkhornForward>::kernel<sinkhorn_forward>);
  m.impl("sinkhorn_divergence_backward",
         &Operator<SinkhornOp, SinkhornBackward>::kernel<sinkhorn_backward>);
  m.impl("maximum_mean_discrepancy", &Operator<DiscrepancyOp, PairPlain>::kernel<discrepancy>);
  m.impl("maximum_mean_discrepancy_backward",
         &Operator<DiscrepancyOp, DiscrepancyBackward>::kernel<discrepancy_backward>);
}

SinkhornCall call_of(const SinkhornDivergenceOptions& options) {
  const std::string_view cost = options.cost, gradient = options.gradient;
  return SinkhornOp::read(options.eps, cost, options.debiased, options.sharp, options.max_iter,
                          options.tol, gradient, options.query_mask, options.key_mask);
}

}  // namespace

bool is_second(const char* op, const char* key, std::string_view value, const char* first,
               const char* second) {
  if (value == second) return true;
  HEADLOOM_CHECK(value == first, op, cat(key, " \"", first, "\" or \"", second, '"'),
                 cat('"', value, '"'));
  return false;
}

void check_transport(const Tensor& u, const Tensor& v, const Tensor& f, const Tensor& g,
                     const TransportCall& call) {
  Contract args(TransportOp::kName);
  args.floating("u", u, {"B", "H", "M", "r"})
      .same("v", v, {"B", "H", "N", "r"})
      .same("f", f, {"B", "H", "M", "p"})
      .same("g", g, {"B", "H", "N", "p"})
      .mask("query_mask", call.query_mask, {"B", "M"})
      .mask("key_mask", call.key_mask, {"B", "N"})
      .require(is_positive(call.temperature), "a temperature above 0", cat(call.temperature))
      .require(call.rho >= 0.0 && call.rho <= 1.0, "rho between 0 and 1", cat(call.rho));
}

void check_sinkhorn(const Tensor& x, const Tensor& y, const SinkhornCall& call) {
  Contract args(SinkhornOp::kName);
  check_pair(args, x, y, call.query_mask, call.key_mask);
  args.require(is_positive(call.options.eps), "eps above 0", cat(call.options.eps),
               "It has the unit of the cost; a tenth of the mean cost is a start.")
      .require(call.options.max_iter >= 1, "max_iter of at least 1", cat(call.options.max_iter))
      .require(call.options.tol >= 0.0, "tol of at least 0", cat(call.options.tol));
}

void check_discrepancy(const Tensor& x, const Tensor& y, const DiscrepancyCall& call) {
  Contract args(DiscrepancyOp::kName);
  check_pair(args, x, y, call.query_mask, call.key_mask);
  args.require(is_positive(call.bandwidth), "a bandwidth above 0", cat(call.bandwidth));
}

Tensor conditional_transport(const Tensor& u, const Tensor& v, const Tensor& f, const Tensor& g,
                             const TransportOptions& options) {
  static const Operator<TransportOp, TransportPlain> op(TransportOp::kName);
  const std::string_view cost = options.cost;
  return op(u, v, f, g,
            TransportOp::read(options.temperature, options.rho, cost, options.query_mask,
                              options.key_mask));
}

Tensor sinkhorn_divergence(const Tensor& x, const Tensor& y,
                           const SinkhornDivergenceOptions& options) {
  static const Operator<SinkhornOp, PairPlain> op(SinkhornOp::kName);
  return op(x, y, call_of(options));
}

std::tuple<Tensor, Tensor> sinkhorn_divergence_with_error(
    const Tensor& x, const Tensor& y, const SinkhornDivergenceOptions& options) {
  static const Operator<SinkhornOp, SinkhornForward> op("sinkhorn_divergence_forward");
  const auto [value, potentials, error] = op(x.detach(), y.detach(), call_of(options));
  return {value, error};
}

Tensor maximum_mean_discrepancy(const Tensor& x, const Tensor& y,
                                const DiscrepancyOptions& options) {
  static const Operator<DiscrepancyOp, PairPlain> op(DiscrepancyOp::kName);
  return op(x, y, {options.bandwidth, options.query_mask, options.key_mask});
}

TORCH_LIBRARY_FRAGMENT(headloom, m) {
  const std::string masks = "Tensor? query_mask=None, Tensor? key_mask=None";
  const std::string transport =
      "*, float temperature=1.0, float rho=0.5, str cost=\"cosine\", " + masks;
  const std::string sinkhorn =
      "*, float eps=0.1, str cost=\"half_squared\", bool debiased=True, bool sharp=False, int "
      "max_iter=200, float tol=1e-05, str gradient=\"envelope\", " +
      masks;
  const std::string discrepancy = "*, float bandwidth=1.0, " + masks;
  const auto define = [&m](const std::string& schema) {
    m.def(torch::schema(schema.c_str()), {at::Tag::pt2_compliant_tag});
  };
  const std::string points = "Tensor u, Tensor v, Tensor f, Tensor g, ";
  define("conditional_transport(" + points + transport + ") -> Tensor");
  define("conditional_transport_forward(" + points + transport + ") -> (Tensor, Tensor, Tensor)");
  define("conditional_transport_backward(Tensor grad_loss, " + points +
         "Tensor query_state, Tensor key_state, " + transport +
         ") -> (Tensor, Tensor, Tensor, Tensor)");
  define("sinkhorn_divergence(Tensor x, Tensor y, " + sinkhorn + ") -> Tensor");
  define("sinkhorn_divergence_forward(Tensor x, Tensor y, " + sinkhorn +
         ") -> (Tensor, Tensor, Tensor)");
  define("sinkhorn_divergence_backward(Tensor grad_value, Tensor x, Tensor y, Tensor potentials, " +
         sinkhorn + ") -> (Tensor, Tensor)");
  define("maximum_mean_discrepancy(Tensor x, Tensor y, " + discrepancy + ") -> Tensor");
  define("maximum_mean_discrepancy_backward(Tensor grad_value, Tensor x, Tensor y, " + discrepancy +
         ") -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(headloom, CPU, m) {
  implement(m);
}

TORCH_LIBRARY_IMPL(headloom, CUDA, m) {
  implement(m);
}

TORCH_LIBRARY_IMPL(headloom, Meta, m) {
  m.impl("conditional_transport", &Operator<TransportOp, TransportPlain>::kernel<transport>);
  m.impl("conditional_transport_forward",
         &Operator<TransportOp, TransportForward>::kernel<transport_forward_meta>);
  m.impl("conditional_transport_backward",
         &Operator<TransportOp, TransportBackward>::kernel<transport_backward_meta>);
  m.impl("sinkhorn_divergence", &Operator<SinkhornOp, PairPlain>::kernel<sinkhorn>);
  m.impl("sinkhorn_divergence_forward",
         &Operator<SinkhornOp, SinkhornForward>::kernel<sinkhorn_forward_meta>);
  m.impl("sinkhorn_divergence_backward",
         &Operator<SinkhornOp, SinkhornBackward>::kernel<sinkhorn_backward_meta>);
  m.impl("maximum_mean_discrepancy", &Operator<DiscrepancyOp, PairPlain>::kernel<discrepancy_meta>);
  m.impl("maximum_mean_discrepancy_backward",
         &Operator<DiscrepancyOp, DiscrepancyBackward>::kernel<discrepancy_backward_meta>);
}

}  // namespace headloom

// Autograd and autocast of the three operators.
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "headloom/base/check.h"
#include "headloom/mechanisms/alignment/alignment_dispatch.h"
#include "headloom/mechanisms/alignment/alignment_reference.h"
#include "headloom/tensor/autocast.h"
#include "headloom/tensor/gradients.h"

namespace headloom {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What the gradients of each operator need besides its inputs.
void keep(AutogradContext* ctx, const TransportCall& call) {
  ctx->saved_data["temperature"] = call.temperature;
  ctx->saved_data["rho"] = call.rho;
  ctx->saved_data["euclidean"] = call.euclidean;
}
TransportCall restore_transport(AutogradContext* ctx, const Tensor& queries, const Tensor& keys) {
  return {ctx->saved_data["temperature"].toDouble(), ctx->saved_data["rho"].toDouble(),
          ctx->saved_data["euclidean"].toBool(), as_optional(queries), as_optional(keys)};
}

void keep(AutogradContext* ctx, const SinkhornCall& call) {
  const SinkhornOptions& o = call.options;
  ctx->saved_data["eps"] = o.eps;
  ctx->saved_data["flags"] = c10::List<bool>({o.cosine, o.debiased, o.sharp, o.implicit});
  ctx->saved_data["max_iter"] = o.max_iter;
  ctx->saved_data["tol"] = o.tol;
}
SinkhornCall restore_sinkhorn(AutogradContext* ctx, const Tensor& queries, const Tensor& keys) {
  const c10::List<bool> flags = ctx->saved_data["flags"].toBoolList();
  return {{ctx->saved_data["eps"].toDouble(), flags[0], flags[1], flags[2], flags[3],
           ctx->saved_data["max_iter"].toInt(), ctx->saved_data["tol"].toDouble()},
          as_optional(queries),
          as_optional(keys)};
}

// Whether a gradient is asked for in such a way that it will be differentiated again.
bool again(const variable_list& grads, const variable_list& saved, size_t inputs) {
  std::vector<Tensor> all(saved.begin(), saved.begin() + static_cast<std::ptrdiff_t>(inputs));
  all.push_back(grads[0]);
  return needs_graph(all);
}

// Saved: the inputs and three numbers a point.
struct TransportFunction : torch::autograd::Function<TransportFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& u, const Tensor& v, const Tensor& f,
                        const Tensor& g, const TransportCall& call) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const Operator<TransportOp, TransportForward> op("conditional_transport_forward");
    const auto [loss, query_state, key_state] = op(u, v, f, g, call);
    ctx->save_for_backward({u, v, f, g, query_state, key_state, value_or_undefined(call.query_mask),
                            value_or_undefined(call.key_mask)});
    keep(ctx, call);
    return loss;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const NoLowering wide;
    const variable_list saved = ctx->get_saved_variables();
    const TransportCall call = restore_transport(ctx, saved[6], saved[7]);
    std::vector<bool> wanted;
    for (size_t i = 0; i < 4; ++i) wanted.push_back(ctx->needs_input_grad(i));
    variable_list result(5);
    if (again(grads, saved, 4)) {
      const auto found = gradients_of(
          [&](const std::vector<Tensor>& x) {
            return transport_reference(x[0], x[1], x[2], x[3], call);
          },
          {saved[0], saved[1], saved[2], saved[3]}, wanted, grads[0], /*create_graph=*/true);
      for (size_t i = 0; i < 4; ++i) result[i] = found[i];
      return result;
    }
    static const Operator<TransportOp, TransportBackward> op("conditional_transport_backward");
    const auto [grad_u, grad_v, grad_f, grad_g] =
        op(grads[0], saved[0], saved[1], saved[2], saved[3], saved[4], saved[5], call);
    const Tensor* found[] = {&grad_u, &grad_v, &grad_f, &grad_g};
    for (size_t i = 0; i < 4; ++i) result[i] = or_undefined(*found[i], wanted[i]);
    return result;
  }
};

struct SinkhornFunction : torch::autograd::Function<SinkhornFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& y,
                        const SinkhornCall& call) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const Operator<SinkhornOp, SinkhornForward> op("sinkhorn_divergence_forward");
    const auto [value, potentials, error] = op(x, y, call);
    ctx->save_for_backward(
        {x, y, potentials, value_or_undefined(call.query_mask), value_or_undefined(call.key_mask)});
    keep(ctx, call);
    return value;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const NoLowering wide;
    const variable_list saved = ctx->get_saved_variables();
    HEADLOOM_CHECK(!again(grads, saved, 2), SinkhornOp::kName, "no double backward",
                   "a gradient that is differentiated again (create_graph)",
                   "Use maximum_mean_discrepancy or conditional_transport there.");
    const SinkhornCall call = restore_sinkhorn(ctx, saved[3], saved[4]);
    static const Operator<SinkhornOp, SinkhornBackward> op("sinkhorn_divergence_backward");
    const auto [grad_x, grad_y] = op(grads[0], saved[0], saved[1], saved[2], call);
    return {or_undefined(grad_x, ctx->needs_input_grad(0)),
            or_undefined(grad_y, ctx->needs_input_grad(1)), Tensor()};
  }
};

struct DiscrepancyFunction : torch::autograd::Function<DiscrepancyFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& y,
                        const DiscrepancyCall& call) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const Operator<DiscrepancyOp, PairPlain> op(DiscrepancyOp::kName);
    ctx->save_for_backward(
        {x, y, value_or_undefined(call.query_mask), value_or_undefined(call.key_mask)});
    ctx->saved_data["bandwidth"] = call.bandwidth;
    return op(x, y, call);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const NoLowering wide;
    const variable_list saved = ctx->get_saved_variables();
    const DiscrepancyCall call{ctx->saved_data["bandwidth"].toDouble(), as_optional(saved[2]),
                               as_optional(saved[3])};
    const std::vector<bool> wanted{ctx->needs_input_grad(0), ctx->needs_input_grad(1)};
    if (again(grads, saved, 2)) {
      auto found = gradients_of(
          [&](const std::vector<Tensor>& x) { return discrepancy_reference(x[0], x[1], call); },
          {saved[0], saved[1]}, wanted, grads[0], /*create_graph=*/true);
      found.emplace_back();
      return found;
    }
    static const Operator<DiscrepancyOp, DiscrepancyBackward> op(
        "maximum_mean_discrepancy_backward");
    const auto [grad_x, grad_y] = op(grads[0], saved[0], saved[1], call);
    return {or_undefined(grad_x, wanted[0]), or_undefined(grad_y, wanted[1]), Tensor()};
  }
};

Tensor transport(const Tensor& u, const Tensor& v, const Tensor& f, const Tensor& g,
                 const TransportCall& call) {
  return TransportFunction::apply(u, v, f, g, call);
}
Tensor sinkhorn(const Tensor& x, const Tensor& y, const SinkhornCall& call) {
  return SinkhornFunction::apply(x, y, call);
}
Tensor discrepancy(const Tensor& x, const Tensor& y, const DiscrepancyCall& call) {
  return DiscrepancyFunction::apply(x, y, call);
}

template <c10::DeviceType device>
Tensor lowered_transport(const Tensor& u, const Tensor& v, const Tensor& f, const Tensor& g,
                         const TransportCall& call) {
  const Lowering<device> lower;
  static const Operator<TransportOp, TransportPlain> op(TransportOp::kName);
  return op(lower(u), lower(v), lower(f), lower(g), call);
}
template <class Op, class Call, c10::DeviceType device>
Tensor lowered_pair(const Tensor& x, const Tensor& y, const Call& call) {
  const Lowering<device> lower;
  static const Operator<Op, PairPlain> op(Op::kName);
  return op(lower(x), lower(y), call);
}

template <c10::DeviceType device>
void implement_autocast(torch::Library& m) {
  m.impl(TransportOp::kName,
         &Operator<TransportOp, TransportPlain>::kernel<lowered_transport<device>>);
  m.impl(SinkhornOp::kName,
         &Operator<SinkhornOp, PairPlain>::kernel<lowered_pair<SinkhornOp, SinkhornCall, device>>);
  m.impl(DiscrepancyOp::kName,
         &Operator<DiscrepancyOp,
                   PairPlain>::kernel<lowered_pair<DiscrepancyOp, DiscrepancyCall, device>>);
}

}  // namespace

TORCH_LIBRARY_IMPL(headloom, Autograd, m) {
  m.impl(TransportOp::kName, &Operator<TransportOp, TransportPlain>::kernel<transport>);
  m.impl(SinkhornOp::kName, &Operator<SinkhornOp, PairPlain>::kernel<sinkhorn>);
  m.impl(DiscrepancyOp::kName, &Operator<DiscrepancyOp, PairPlain>::kernel<discrepancy>);
}

TORCH_LIBRARY_IMPL(headloom, AutocastCPU, m) {
  implement_autocast<c10::DeviceType::CPU>(m);
}

TORCH_LIBRARY_IMPL(headloom, AutocastCUDA, m) {
  implement_autocast<c10::DeviceType::CUDA>(m);
}

}  // namespace headloom

#include "headloom/mechanisms/symmetric/symmetric_convert.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <cmath>
#include <tuple>

#include "headloom/base/check.h"
#include "headloom/mechanisms/symmetric/symmetric_reference.h"
#include "headloom/tensor/gradients.h"

namespace headloom {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

constexpr const char* kExport = "ordinary_projections";
constexpr const char* kImport = "nearest_pairwise";
// Each gains less than the one before; a few hundred leave nothing to gain in float64.
constexpr int kIterations = 300;
constexpr double kGain = 1e-13;  // relative, at which the iteration has converged

void check_projection(const char* op, const char* name, const Tensor& weight, const Tensor& bias,
                      int64_t heads) {
  HEADLOOM_CHECK(
      weight.dim() == 2 && weight.is_floating_point() && heads >= 1 && weight.size(0) % heads == 0,
      op, cat(name, "_weight of shape [H D, C] with H = ", heads),
      cat("shape ", weight.sizes(), ", ", weight.scalar_type()));
  HEADLOOM_CHECK(!bias.defined() || (bias.dim() == 1 && bias.size(0) == weight.size(0)), op,
                 cat(name, "_bias of shape [", weight.size(0), "]"),
                 cat("shape ", bias.defined() ? bias.sizes() : at::IntArrayRef{}));
}

// [H D, C] and [H D] as [H, D, C + 1], the bias as the weight of a constant input.
Tensor with_constant(const Tensor& weight, const Tensor& bias, int64_t heads) {
  const Tensor wide = weight.to(at::kDouble);
  const Tensor column =
      bias.defined() ? bias.to(at::kDouble) : at::zeros({weight.size(0)}, wide.options());
  return at::cat({wide, column.unsqueeze(1)}, 1)
      .view({heads, weight.size(0) / heads, weight.size(1) + 1});
}

Tensor squared_norm(const Tensor& x) {
  return x.square().sum({-2, -1}, /*keepdim=*/true);
}

Tensor leading_vectors(const Tensor& symmetric, int64_t count) {
  return std::get<1>(at::linalg_eigh(symmetric)).narrow(-1, symmetric.size(-1) - count, count);
}

// What U keeps of M, [H, D, D].
Tensor kept_by(const Tensor& u, const Tensor& m) {
  return at::matmul(u.mT(), at::matmul(m, u));
}

// U [H, m, D] with orthonormal columns that (locally) maximises |U^T M U| for M [H, m, m]. With P =
// U U^T, |U^T M U|^2 = <P, L(P)>, L(P) = (M P M^T + M^T P M) / 2: the leading vectors of L(P) are
// the next U. Where that is no gain, those of L(P) + |M|^2 P are, because |P| is constant and the
// form convex with this term.
Tensor best_dimensions(const Tensor& m, int64_t width) {
  const auto image = [&](const Tensor& p) {
    return at::matmul(m, at::matmul(p, m.mT())) + at::matmul(m.mT(), at::matmul(p, m));
  };
  Tensor u = leading_vectors(at::matmul(m, m.mT()) + at::matmul(m.mT(), m), width);
  Tensor value = squared_norm(kept_by(u, m));
  const Tensor whole = squared_norm(m);
  for (int i = 0; i < kIterations; ++i) {
    const Tensor p = at::matmul(u, u.mT()), moved = image(p);
    Tensor next = leading_vectors(moved, width), next_value = squared_norm(kept_by(next, m));
    if ((next_value < value).any().item<bool>()) {
      const Tensor careful = leading_vectors(moved + 2 * whole * p, width);
      next = at::where(next_value < value, careful, next);
      next_value = squared_norm(kept_by(next, m));
    }
    const Tensor better = next_value > value;
    const double gain = ((next_value - value) / whole.clamp_min(1e-300)).max().item<double>();
    u = at::where(better, next, u);
    value = at::where(better, next_value, value);
    if (gain < kGain) break;
  }
  return u;
}

// W [H, D, C + 1] with the constant's column, A [H, D, D], and what is left of the form [H].
struct Form {
  Tensor weight, pairwise, residual;
};

// The form nearest to q^T k, both [H, D, C + 1].
Form fit(const Tensor& q, const Tensor& k) {
  // Everything happens in the dimensions that either projection sees, m <= 2 D of them.
  const Tensor basis = std::get<0>(at::linalg_qr(at::cat({q, k}, 1).mT()));      // [H, C + 1, m]
  const Tensor m = at::matmul(at::matmul(q, basis).mT(), at::matmul(k, basis));  // [H, m, m]
  const Tensor u = best_dimensions(m, q.size(1));
  const Tensor kept = kept_by(u, m);  // [H, D, D]
  // W and A share the magnitude so that A's is that of the identity.
  const double root = std::sqrt(static_cast<double>(q.size(1)));
  const Tensor size = (squared_norm(kept).sqrt() / root).clamp_min(1e-30);
  Form form{at::matmul(u.mT(), basis.mT()) * size.sqrt(), kept / size, {}};
  // The softmax is blind to the column of the keys' constant.
  const int64_t inputs = q.size(2) - 1;
  const Tensor whole = at::matmul(q.mT(), k.narrow(2, 0, inputs));
  const Tensor found = at::matmul(at::matmul(form.pairwise.mT(), form.weight).mT(),
                                  form.weight.narrow(2, 0, inputs));
  const Tensor share = squared_norm(whole - found) / squared_norm(whole).clamp_min(1e-300);
  form.residual = share.sqrt().view({q.size(0)});
  return form;
}

}  // namespace

OrdinaryProjections ordinary_projections(const Tensor& weight, const Tensor& bias,
                                         const Tensor& pairwise, int64_t heads) {
  const int64_t width = pairwise.defined() ? pairwise.size(-1) : weight.size(0) / heads;
  const int64_t shared = width > 0 ? weight.size(0) / width : heads;
  check_projection(kExport, "q", weight, bias, shared);
  HEADLOOM_CHECK(!pairwise.defined() || (pairwise.dim() == 3 && pairwise.size(0) == heads &&
                                         pairwise.size(1) == width && heads % shared == 0),
                 kExport, cat("pairwise of shape [H, D, D] with H = ", heads),
                 cat("shape ", pairwise.defined() ? pairwise.sizes() : at::IntArrayRef{}));
  // A weight is a "sequence" of its C inputs: its columns take the coefficients as queries do.
  const auto heads_of = [&](const Tensor& columns, const Tensor& fold) {
    const Tensor rows = columns.view({1, shared, width, -1}).mT();  // [1, Hq, C, D]
    return fold_queries(rows, fold, heads).mT().reshape({heads * width, -1}).contiguous();
  };
  OrdinaryProjections found{heads_of(weight, pairwise), {}, heads_of(weight, {}), {}};
  if (bias.defined()) {
    found.q_bias = heads_of(bias.unsqueeze(1), pairwise).squeeze(1);
    found.k_bias = heads_of(bias.unsqueeze(1), {}).squeeze(1);
  }
  return found;
}

PairwiseFit nearest_pairwise(const Tensor& q_weight, const Tensor& q_bias, const Tensor& k_weight,
                             const Tensor& k_bias, int64_t heads) {
  check_projection(kImport, "q", q_weight, q_bias, heads);
  check_projection(kImport, "k", k_weight, k_bias, heads);
  HEADLOOM_CHECK(q_weight.sizes() == k_weight.sizes(), kImport,
                 cat("k_weight of the shape of q_weight, ", q_weight.sizes()),
                 cat("shape ", k_weight.sizes()));
  const int64_t width = q_weight.size(0) / heads, inputs = q_weight.size(1);
  HEADLOOM_CHECK(width <= inputs, kImport, "heads no wider than the model",
                 cat("D = ", width, ", C = ", inputs));
  const at::NoGradGuard no_grad;
  const Tensor q = with_constant(q_weight, q_bias, heads);  // [H, D, C + 1]
  Form form = fit(q, with_constant(k_weight, {}, heads));
  if (k_bias.defined()) {
    const Form other = fit(q, with_constant(k_weight, k_bias, heads));
    const Tensor better = (other.residual < form.residual).view({heads, 1, 1});
    form.weight = at::where(better, other.weight, form.weight);
    form.pairwise = at::where(better, other.pairwise, form.pairwise);
    form.residual = at::minimum(other.residual, form.residual);
  }
  const auto type = q_weight.scalar_type();
  PairwiseFit found;
  found.weight = form.weight.narrow(2, 0, inputs).reshape({heads * width, inputs}).to(type);
  found.bias = form.weight.select(2, inputs).reshape({heads * width}).to(type);
  found.pairwise = form.pairwise.to(type);
  found.residual = form.residual;
  return found;
}

namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> export_op(const Tensor& weight,
                                                     const OptionalTensor& bias,
                                                     const OptionalTensor& pairwise,
                                                     int64_t heads) {
  const OrdinaryProjections found =
      ordinary_projections(weight, value_or_undefined(bias), value_or_undefined(pairwise), heads);
  return {found.q_weight, or_empty(found.q_bias, weight), found.k_weight,
          or_empty(found.k_bias, weight)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> import_op(const Tensor& q_weight,
                                                     const OptionalTensor& q_bias,
                                                     const Tensor& k_weight,
                                                     const OptionalTensor& k_bias, int64_t heads) {
  const PairwiseFit fit = nearest_pairwise(q_weight, value_or_undefined(q_bias), k_weight,
                                           value_or_undefined(k_bias), heads);
  return {fit.weight, fit.bias, fit.pairwise, fit.residual};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(headloom, m) {
  m.def(
      "ordinary_projections(Tensor weight, Tensor? bias, Tensor? pairwise, int heads) -> (Tensor, "
      "Tensor, Tensor, Tensor)",
      &export_op);
  m.def(
      "nearest_pairwise(Tensor q_weight, Tensor? q_bias, Tensor k_weight, Tensor? k_bias, int "
      "heads) -> (Tensor, Tensor, Tensor, Tensor)",
      &import_op);
}

}  // namespace headloom

#include "headloom/mechanisms/symmetric/symmetric_convert.h"

#include <ATen/ATen.h>
#include <torch/library.h>

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
  const at::NoGradGuard no_grad;
  const int64_t width = q_weight.size(0) / heads, inputs = q_weight.size(1);
  const Tensor q = with_constant(q_weight, q_bias, heads);  // [H, D, C + 1]
  const Tensor k = with_constant(k_weight, {}, heads);
  // Everything happens in the dimensions that either projection sees, m <= 2 D of them.
  const Tensor basis = std::get<0>(at::linalg_qr(at::cat({q, k}, 1).mT()));      // [H, C + 1, m]
  const Tensor m = at::matmul(at::matmul(q, basis).mT(), at::matmul(k, basis));  // [H, m, m]
  HEADLOOM_CHECK(m.size(-1) >= width, kImport, "heads no wider than the model",
                 cat("D = ", width, ", C = ", inputs));
  const Tensor u = best_dimensions(m, width);
  const Tensor kept = kept_by(u, m);  // [H, D, D]
  const Tensor whole = squared_norm(m);
  const Tensor missing = (whole - squared_norm(kept)).clamp_min(0.0);
  // W and A share the magnitude so that A's is that of the identity.
  const Tensor size =
      (squared_norm(kept).sqrt() / std::sqrt(static_cast<double>(width))).clamp_min(1e-30);
  const Tensor weight = at::matmul(u.mT(), basis.mT()) * size.sqrt();  // [H, D, C + 1]
  const auto type = q_weight.scalar_type();
  PairwiseFit fit;
  fit.weight = weight.narrow(2, 0, inputs).reshape({heads * width, inputs}).to(type);
  fit.bias = weight.select(2, inputs).reshape({heads * width}).to(type);
  fit.pairwise = (kept / size).to(type);
  fit.residual = (missing / whole.clamp_min(1e-300)).sqrt().view({heads});
  return fit;
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

#include "headloom/mechanisms/alignment/alignment_reference.h"

#include <ATen/ATen.h>

#include <limits>

#include "headloom/tensor/dispatch.h"

namespace headloom {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

constexpr double kNever = -std::numeric_limits<double>::infinity();
constexpr double kSmallestSquare = 1e-12;

// [B, points] as [B, 1, points, 1].
Tensor over_rows(const Tensor& mask) {
  return mask.unsqueeze(1).unsqueeze(3);
}

// Softmax along `dim` of what the weights keep; zeros where they keep nothing.
Tensor kept_softmax(const Tensor& logits, const Tensor& weights, int64_t dim) {
  const Tensor kept = logits.masked_fill(weights == 0, kNever);
  Tensor most = kept.detach().amax(dim, /*keepdim=*/true);
  most = at::where(most == kNever, at::zeros_like(most), most);
  const Tensor e = (kept - most).exp();
  const Tensor sum = e.sum(dim, /*keepdim=*/true);
  return e / (sum + (sum == 0).to(sum.scalar_type()));
}

Tensor squares(const Tensor& x) {
  return (x * x).sum(-1);
}

// One transport problem with its constants: potentials, plan, costs.
struct Problem {
  Tensor cost, a, b;  // [B, H, M, N] with its graph; [B, 1, M, 1], [B, 1, 1, N]

  // log of sum over `dim` of weight e^exponent.
  static Tensor log_mean(const Tensor& exponent, const Tensor& weight, int64_t dim) {
    return at::logsumexp(exponent + weight.log(), dim, /*keepdim=*/true);
  }
  // e^(-inf) weights leave -inf, which stands for "no point here".
  static Tensor finite(const Tensor& potential) {
    return at::where(potential.isfinite(), potential, at::zeros_like(potential));
  }
};

struct Solution {
  Tensor f, g, plan, error;  // [B, H, M, 1], [B, H, 1, N], [B, H, M, N], [B, H]
};

Solution finish(const Problem& p, const Tensor& cost, const Tensor& f, const Tensor& g,
                double eps) {
  const Tensor plan = p.a * p.b * ((f + g - cost) / eps).exp();
  return {f, g, plan, (plan.sum(-1, true) - p.a).abs().sum({2, 3})};
}

Solution solve(const Problem& p, const SinkhornOptions& options, bool symmetric) {
  const Tensor cost = p.cost.detach();
  const double eps = options.eps;
  Tensor f = at::zeros_like(cost.narrow(3, 0, 1)), g = at::zeros_like(cost.narrow(2, 0, 1));
  const auto row = [&] {
    return Problem::finite(-eps * Problem::log_mean((g - cost) / eps, p.b, 3));
  };
  const auto column = [&] {
    return Problem::finite(-eps * Problem::log_mean((f - cost) / eps, p.a, 2));
  };
  if (symmetric) {
    f = cost.diagonal(0, 2, 3).unsqueeze(3) / 2;
    g = f.transpose(2, 3);
  } else {
    f = row();
    g = column();
  }
  for (int64_t iteration = 1;; ++iteration) {
    Solution found = finish(p, cost, f, g, eps);
    if (iteration >= options.max_iter || found.error.max().item<double>() <= options.tol) {
      return found;
    }
    if (symmetric) {
      f = (f + row()) / 2;
      g = f.transpose(2, 3);
    } else {
      f = row();
      g = column();
    }
  }
}

// dvalue/dc of the sharp cost, the plan's own derivative included: pi (1 - (c - lambda - mu) / eps)
// with (lambda, mu) from the dense system, of which (1, -1) is the null direction.
Tensor implicit_weights(const Problem& p, const Solution& s, const SinkhornOptions& options) {
  const Tensor cost = p.cost.detach();
  const int64_t m = cost.size(2), n = cost.size(3);
  const Tensor a = p.a.expand({cost.size(0), cost.size(1), m, 1}).squeeze(3);
  const Tensor b = p.b.expand({cost.size(0), cost.size(1), 1, n}).squeeze(2);
  const Tensor matrix = at::cat(
      {at::cat({at::diag_embed(a), s.plan}, 3), at::cat({s.plan.mT(), at::diag_embed(b)}, 3)}, 2);
  const Tensor priced = s.plan * cost;
  const Tensor right = at::cat({priced.sum(3), priced.sum(2)}, 2).unsqueeze(3);
  const Tensor solution = at::matmul(at::linalg_pinv(matrix, 1e-10, /*hermitian=*/true), right);
  const Tensor lambda = solution.narrow(2, 0, m), mu = solution.narrow(2, m, n).mT();
  return s.plan * (1 - (cost - lambda - mu) / options.eps);
}

// The value of one problem; its graph holds the gradient that the options ask for.
Tensor value_of(const Problem& p, const SinkhornOptions& options, bool symmetric) {
  const Solution s = solve(p, options, symmetric);
  const Tensor cost = p.cost.detach();
  const Tensor value = options.sharp ? (s.plan * cost).sum({2, 3})
                                     : (p.a * s.f).sum({2, 3}) + (p.b * s.g).sum({2, 3});
  const Tensor weights =
      options.sharp && options.implicit ? implicit_weights(p, s, options) : s.plan;
  return value + (weights * (p.cost - cost)).sum({2, 3});
}

}  // namespace

Tensor cleared(const Tensor& points, const OptionalTensor& mask) {
  return mask ? points.masked_fill(over_rows(*mask), 0) : points;
}

Tensor weights_of(const Tensor& points, const OptionalTensor& mask) {
  const Tensor kept = mask ? mask->logical_not().to(points.scalar_type())
                           : at::ones({points.size(0), points.size(2)}, points.options());
  return (kept / kept.sum(1, /*keepdim=*/true).clamp_min(1)).unsqueeze(1);
}

Tensor transport_cost(const Tensor& f, const Tensor& g, bool euclidean) {
  const Tensor products = at::matmul(f, g.mT());
  if (!euclidean) return 1 - products;
  const Tensor square = squares(f).unsqueeze(3) + squares(g).unsqueeze(2) - 2 * products;
  // clamp_min passes the gradient at the bound itself; points on each other must give none.
  return at::where(square > kSmallestSquare, square, kSmallestSquare).sqrt();
}

Tensor transport_reference(const Tensor& u, const Tensor& v, const Tensor& f, const Tensor& g,
                           const TransportCall& call) {
  Tensor a = weights_of(u, call.query_mask), b = weights_of(v, call.key_mask);
  const Tensor both = (a.sum(2, true) * b.sum(2, true) != 0).to(a.scalar_type());  // [B, 1, 1]
  a = (a * both).unsqueeze(3);                                                     // [B, 1, M, 1]
  b = (b * both).unsqueeze(2);                                                     // [B, 1, 1, N]
  if (u.size(2) == 0 || v.size(2) == 0) {
    return (u.sum({2, 3}) + v.sum({2, 3}) + f.sum({2, 3}) + g.sum({2, 3})) * 0;
  }
  const Tensor logits =
      at::matmul(cleared(u, call.query_mask), cleared(v, call.key_mask).mT()) / call.temperature;
  const Tensor cost =
      transport_cost(cleared(f, call.query_mask), cleared(g, call.key_mask), call.euclidean);
  const Tensor forth = a * kept_softmax(logits, b, 3), back = b * kept_softmax(logits, a, 2);
  return ((call.rho * forth + (1 - call.rho) * back) * cost).sum({2, 3});
}

Tensor sinkhorn_cost(const Tensor& x, const Tensor& y, bool cosine) {
  const Tensor products = at::matmul(x, y.mT());
  if (cosine) return 1 - products;
  return (squares(x).unsqueeze(3) + squares(y).unsqueeze(2)) / 2 - products;
}

Tensor sinkhorn_reference(const Tensor& given_x, const Tensor& given_y, const SinkhornCall& call) {
  const at::ScalarType type = accumulation_type(given_x);
  const Tensor x = cleared(given_x, call.query_mask).to(type);
  const Tensor y = cleared(given_y, call.key_mask).to(type);
  if (x.size(2) == 0 || y.size(2) == 0)
    return ((x.sum({2, 3}) + y.sum({2, 3})) * 0).to(given_x.scalar_type());
  const Tensor a = weights_of(x, call.query_mask), b = weights_of(y, call.key_mask);
  const Tensor both = (a.sum(2) * b.sum(2) != 0).to(a.scalar_type());  // [B, 1]
  const SinkhornOptions& options = call.options;
  const auto between = [&](const Tensor& p, const Tensor& q, const Tensor& of_p, const Tensor& of_q,
                           bool symmetric) {
    return value_of({sinkhorn_cost(p, q, options.cosine), of_p.unsqueeze(3), of_q.unsqueeze(2)},
                    options, symmetric);
  };
  Tensor value = between(x, y, a, b, false);
  if (options.debiased) {
    value = value - (between(x, x, a, a, true) + between(y, y, b, b, true)) / 2;
  }
  return at::where(both != 0, value, at::zeros_like(value)).to(given_x.scalar_type());
}

Tensor discrepancy_reference(const Tensor& given_x, const Tensor& given_y,
                             const DiscrepancyCall& call) {
  const Tensor x = cleared(given_x, call.query_mask), y = cleared(given_y, call.key_mask);
  const Tensor a = weights_of(x, call.query_mask).unsqueeze(3);                  // [B, 1, M, 1]
  const Tensor b = weights_of(y, call.key_mask).unsqueeze(3);                    // [B, 1, N, 1]
  const Tensor both = (a.sum({2, 3}) * b.sum({2, 3}) != 0).to(a.scalar_type());  // [B, 1]
  const double factor = -1.0 / (call.bandwidth * call.bandwidth);
  const auto mean = [&](const Tensor& p, const Tensor& q, const Tensor& of_p, const Tensor& of_q) {
    const Tensor kernel = (sinkhorn_cost(p, q, /*cosine=*/false) * factor).exp();
    return (of_p * of_q.mT() * kernel).sum({2, 3});
  };
  return both * (mean(x, x, a, a) + mean(y, y, b, b) - 2 * mean(x, y, a, b));
}

}  // namespace headloom

// The operators in torch operations on chunks of queries: any device, memory bounded by a chunk.
#include <ATen/ATen.h>

#include <limits>

#include "headloom/mechanisms/alignment/alignment_reference.h"
#include "headloom/tensor/dispatch.h"
#include "headloom/tensor/gradients.h"

namespace headloom {
namespace {

using at::Tensor;

constexpr double kNever = -std::numeric_limits<double>::infinity();
// Pairs of a chunk, all heads together: 16 MiB of float32 a tensor.
constexpr int64_t kChunkPairs = int64_t{1} << 22;

// Calls body(begin, rows) for chunks of the rows of x against all of y.
template <class Body>
void for_each_chunk(const Tensor& x, const Tensor& y, const Body& body) {
  const int64_t row = std::max<int64_t>(1, x.size(0) * x.size(1) * y.size(2));
  const int64_t rows = std::max<int64_t>(1, kChunkPairs / row);
  for (int64_t begin = 0; begin < x.size(2); begin += rows) {
    body(begin, std::min(rows, x.size(2) - begin));
  }
}

// The two sides of transport in the accumulation type, points of no weight cleared.
struct Sides {
  Tensor u, v, f, g;
  Tensor a, b;  // weights [B, 1, M, 1] and [B, 1, 1, N], 0 where either set is empty
  TransportCall call;

  Sides(const Tensor& u, const Tensor& v, const Tensor& f, const Tensor& g,
        const TransportCall& call)
      : u(wide(u, call.query_mask)),
        v(wide(v, call.key_mask)),
        f(wide(f, call.query_mask)),
        g(wide(g, call.key_mask)),
        a(weights_of(this->u, call.query_mask).unsqueeze(3)),
        b(weights_of(this->v, call.key_mask).unsqueeze(2)),
        call(call) {
    const Tensor both = (a.sum(2, true) * b.sum(3, true) != 0).to(a.scalar_type());
    a = a * both;
    b = b * both;
  }
  static Tensor wide(const Tensor& x, const std::optional<Tensor>& mask) {
    return cleared(x, mask).to(accumulation_type(x));
  }
  Tensor logits(int64_t begin, int64_t rows) const {
    return at::matmul(u.narrow(2, begin, rows), v.mT()) / call.temperature;
  }
  Tensor costs(int64_t begin, int64_t rows) const {
    return transport_cost(f.narrow(2, begin, rows), g, call.euclidean);
  }
  // e^(logits - shift) of the points that the weights keep.
  static Tensor kept_exp(const Tensor& logits, const Tensor& shift, const Tensor& weights) {
    return (logits - shift).masked_fill(weights == 0, kNever).exp();
  }
};

// What a row or column of -inf subtracts.
Tensor finite(const Tensor& maximum) {
  return at::where(maximum == kNever, at::zeros_like(maximum), maximum);
}
Tensor divided(const Tensor& x, const Tensor& sum) {
  return x / (sum + (sum == 0).to(sum.scalar_type()));
}

}  // namespace

Tensor3 transport_forward_chunked(const Tensor& u, const Tensor& v, const Tensor& f,
                                  const Tensor& g, const TransportCall& call) {
  const Sides s(u, v, f, g, call);
  const Tensor query_state = at::zeros({u.size(0), u.size(1), u.size(2), 3}, s.u.options());
  const auto columns = [&](double value) {
    return at::full({u.size(0), u.size(1), 1, v.size(2)}, value, s.u.options());
  };
  Tensor most = columns(kNever), sum = columns(0), mean = columns(0);
  for_each_chunk(u, v, [&](int64_t begin, int64_t rows) {
    if (v.size(2) == 0) return;
    const Tensor logits = s.logits(begin, rows), cost = s.costs(begin, rows);
    const Tensor a = s.a.narrow(2, begin, rows);
    const Tensor shift = finite(logits.masked_fill(s.b == 0, kNever).amax(3, true));
    const Tensor e = Sides::kept_exp(logits, shift, s.b);
    const Tensor row_sum = e.sum(3, true);
    query_state.narrow(2, begin, rows)
        .copy_(at::cat({shift, row_sum, divided((e * cost).sum(3, true), row_sum)}, 3));
    const Tensor next = at::maximum(most, logits.masked_fill(a == 0, kNever).amax(2, true));
    const Tensor worth = (finite(most) - finite(next)).exp();
    const Tensor e_column = Sides::kept_exp(logits, finite(next), a);
    sum = sum * worth + e_column.sum(2, true);
    mean = mean * worth + (e_column * cost).sum(2, true);
    most = next;
  });
  const Tensor key_state = at::cat({finite(most), sum, divided(mean, sum)}, 2).mT().contiguous();
  const Tensor forth = (s.a.squeeze(3) * query_state.select(3, 2)).sum(2);
  const Tensor back = (s.b.squeeze(2) * key_state.select(3, 2)).sum(2);
  const Tensor loss = call.rho * forth + (1 - call.rho) * back;
  return {loss.to(u.scalar_type()), query_state, key_state};
}

Tensor4 transport_backward_chunked(const Tensor& grad_loss, const Tensor& u, const Tensor& v,
                                   const Tensor& f, const Tensor& g, const Tensor& query_state,
                                   const Tensor& key_state, const TransportCall& call) {
  const Sides s(u, v, f, g, call);
  const Tensor upstream = grad_loss.to(s.u.scalar_type()).unsqueeze(2).unsqueeze(3);
  const Tensor grad_u = at::zeros_like(s.u), grad_v = at::zeros_like(s.v),
               grad_f = at::zeros_like(s.f), grad_g = at::zeros_like(s.g);
  const auto of_keys = [&](int64_t i) { return key_state.select(3, i).unsqueeze(2); };
  for_each_chunk(u, v, [&](int64_t begin, int64_t rows) {
    const Tensor states = query_state.narrow(2, begin, rows);
    const auto of_rows = [&](int64_t i) { return states.select(3, i).unsqueeze(3); };
    const Tensor logits = s.logits(begin, rows), cost = s.costs(begin, rows);
    const Tensor a = s.a.narrow(2, begin, rows);
    const Tensor forth =
        call.rho * a * divided(Sides::kept_exp(logits, of_rows(0), s.b), of_rows(1));
    const Tensor back =
        (1 - call.rho) * s.b * divided(Sides::kept_exp(logits, of_keys(0), a), of_keys(1));
    const Tensor by_logit =
        upstream * (forth * (cost - of_rows(2)) + back * (cost - of_keys(2))) / call.temperature;
    grad_u.narrow(2, begin, rows).copy_(at::matmul(by_logit, s.v));
    grad_v.add_(at::matmul(by_logit.mT(), s.u.narrow(2, begin, rows)));
    const Tensor by_cost = upstream * (forth + back);
    const auto found = gradients_of(
        [&](const std::vector<Tensor>& x) { return transport_cost(x[0], x[1], call.euclidean); },
        {s.f.narrow(2, begin, rows), s.g}, {true, true}, by_cost);
    grad_f.narrow(2, begin, rows).copy_(found[0]);
    grad_g.add_(found[1]);
  });
  const auto type = u.scalar_type();
  return {grad_u.to(type), grad_v.to(type), grad_f.to(type), grad_g.to(type)};
}

namespace {

// One transport problem between points p and q with logarithms of weights; potentials [B, H, .].
struct Entropic {
  Tensor p, q, log_a, log_b;  // [B, H, M, D], [B, H, N, D], [B, 1, M], [B, 1, N]
  SinkhornOptions options;

  Entropic turned() const { return {q, p, log_b, log_a, options}; }

  // body(begin, rows, cost [B, H, rows, N])
  template <class Body>
  void over_rows(const Body& body) const {
    for_each_chunk(p, q, [&](int64_t begin, int64_t rows) {
      body(begin, rows, sinkhorn_cost(p.narrow(2, begin, rows), q, options.cosine));
    });
  }
  Tensor rows_like() const { return at::zeros({p.size(0), p.size(1), p.size(2)}, p.options()); }

  Tensor half_step(const Tensor& g) const {
    const Tensor f = rows_like();
    over_rows([&](int64_t begin, int64_t rows, const Tensor& cost) {
      const Tensor exponent = (g.unsqueeze(2) - cost) / options.eps + log_b.unsqueeze(2);
      const Tensor value = -options.eps * at::logsumexp(exponent, 3);
      f.narrow(2, begin, rows).copy_(at::where(value.isfinite(), value, at::zeros_like(value)));
    });
    return f;
  }
  Tensor plan(const Tensor& f, const Tensor& g, int64_t begin, int64_t rows,
              const Tensor& cost) const {
    const Tensor own = f.narrow(2, begin, rows).unsqueeze(3);
    const Tensor log_own = log_a.narrow(2, begin, rows).unsqueeze(3);
    return ((own + g.unsqueeze(2) - cost) / options.eps + log_own + log_b.unsqueeze(2)).exp();
  }
  // sum_j pi_ij mu_j of each row, and sum_j pi_ij c_ij when there is no mu.
  Tensor row_sums(const Tensor& f, const Tensor& g, const Tensor& mu) const {
    const Tensor sums = rows_like();
    over_rows([&](int64_t begin, int64_t rows, const Tensor& cost) {
      const Tensor factor = mu.defined() ? mu.unsqueeze(2) : cost;
      sums.narrow(2, begin, rows).copy_((plan(f, g, begin, rows, cost) * factor).sum(3));
    });
    return sums;
  }
  // L1 violation of the rows, given the potential that would make them exact.
  Tensor violation(const Tensor& f, const Tensor& exact) const {
    return (log_a.exp() * (((f - exact) / options.eps).exp() - 1).abs()).sum(2);
  }
  Tensor value(const Tensor& f, const Tensor& g) const {
    if (options.sharp) return row_sums(f, g, {}).sum(2);
    return (log_a.exp() * f).sum(2) + (log_b.exp() * g).sum(2);
  }
};

struct Potentials {
  Tensor f, g, error;
};

Potentials iterate(const Entropic& problem) {
  Potentials now;
  now.g = problem.turned().rows_like();
  now.f = problem.half_step(now.g);
  for (int64_t iteration = 1;; ++iteration) {
    now.g = problem.turned().half_step(now.f);
    const Tensor exact = problem.half_step(now.g);
    now.error = problem.violation(now.f, exact);
    if (iteration >= problem.options.max_iter ||
        now.error.max().item<double>() <= problem.options.tol) {
      return now;
    }
    now.f = exact;
  }
}

Potentials iterate_self(const Entropic& problem) {
  Potentials now;
  const Tensor squares = (problem.p * problem.p).sum(3);
  now.f = problem.options.cosine ? (1 - squares) / 2 : at::zeros_like(squares);
  for (int64_t iteration = 1;; ++iteration) {
    const Tensor exact = problem.half_step(now.f);
    now.error = problem.violation(now.f, exact);
    if (iteration >= problem.options.max_iter ||
        now.error.max().item<double>() <= problem.options.tol) {
      break;
    }
    now.f = (now.f + exact) / 2;
  }
  now.g = now.f;
  return now;
}

// lambda and mu of the implicit gradient, by block Gauss-Seidel.
std::pair<Tensor, Tensor> corrections(const Entropic& problem, const Tensor& f, const Tensor& g) {
  const Entropic turned = problem.turned();
  const Tensor rows = problem.row_sums(f, g, {}), columns = turned.row_sums(g, f, {});
  // The marginals that the plan has, which keep the iteration stable before it has converged.
  const Tensor row_mass = problem.row_sums(f, g, at::ones_like(columns));
  const Tensor column_mass = turned.row_sums(g, f, at::ones_like(rows));
  const auto relax = [](const Tensor& mass, const Tensor& costs, const Tensor& known) {
    return at::where(mass > 0, (costs - known) / mass, at::zeros_like(mass));
  };
  Tensor lambda = problem.rows_like(), mu = turned.rows_like();
  const double scale = rows.abs().sum(2).max().item<double>();
  for (int64_t iteration = 0; iteration < problem.options.max_iter; ++iteration) {
    const Tensor next = relax(row_mass, rows, problem.row_sums(f, g, mu));
    const double moved = ((next - lambda).abs() * problem.log_a.exp()).sum(2).max().item<double>();
    lambda = next;
    mu = relax(column_mass, columns, turned.row_sums(g, f, lambda));
    if (moved <= problem.options.tol * scale) break;
  }
  return {lambda, mu};
}

// Adds factor [B, H] times the gradient of one problem.
void add_gradients(const Entropic& problem, const Tensor& f, const Tensor& g, const Tensor& factor,
                   const Tensor& grad_p, const Tensor& grad_q) {
  const SinkhornOptions& options = problem.options;
  Tensor lambda, mu;
  if (options.sharp && options.implicit) std::tie(lambda, mu) = corrections(problem, f, g);
  problem.over_rows([&](int64_t begin, int64_t rows, const Tensor& cost) {
    Tensor weights = problem.plan(f, g, begin, rows, cost) * factor.unsqueeze(2).unsqueeze(3);
    if (lambda.defined()) {
      const Tensor moved = lambda.narrow(2, begin, rows).unsqueeze(3) + mu.unsqueeze(2);
      weights = weights * (1 - (cost - moved) / options.eps);
    }
    const auto found = gradients_of(
        [&](const std::vector<Tensor>& x) { return sinkhorn_cost(x[0], x[1], options.cosine); },
        {problem.p.narrow(2, begin, rows), problem.q}, {true, true}, weights);
    grad_p.narrow(2, begin, rows).add_(found[0]);
    grad_q.add_(found[1]);
  });
}

// The problems of one call.
struct Entropics {
  Entropic between, x_self, y_self;
  Tensor both;  // [B, 1]: whether neither set is empty

  Entropics(const Tensor& given_x, const Tensor& given_y, const SinkhornCall& call) {
    const Tensor x = Sides::wide(given_x, call.query_mask), y = Sides::wide(given_y, call.key_mask);
    const Tensor a = weights_of(x, call.query_mask), b = weights_of(y, call.key_mask);
    both = a.sum(2) * b.sum(2) != 0;
    between = {x, y, a.log(), b.log(), call.options};
    x_self = {x, x, a.log(), a.log(), call.options};
    y_self = {y, y, b.log(), b.log(), call.options};
  }
};

}  // namespace

Tensor3 sinkhorn_forward_chunked(const Tensor& x, const Tensor& y, const SinkhornCall& call) {
  const Entropics problems(x, y, call);
  const int64_t m = x.size(2), n = y.size(2);
  const auto options = problems.between.p.options();
  const Tensor potentials = at::zeros({x.size(0), x.size(1), 2 * (m + n)}, options);
  if (m == 0 || n == 0 || x.numel() == 0) {
    const Tensor nothing = at::zeros({x.size(0), x.size(1)}, options);
    return {nothing.to(x.scalar_type()), potentials, nothing};
  }
  const Potentials found = iterate(problems.between);
  potentials.narrow(2, 0, m).copy_(found.f);
  potentials.narrow(2, m, n).copy_(found.g);
  Tensor value = problems.between.value(found.f, found.g), error = found.error;
  if (call.options.debiased) {
    const Potentials of_x = iterate_self(problems.x_self), of_y = iterate_self(problems.y_self);
    potentials.narrow(2, m + n, m).copy_(of_x.f);
    potentials.narrow(2, 2 * m + n, n).copy_(of_y.f);
    value =
        value - (problems.x_self.value(of_x.f, of_x.f) + problems.y_self.value(of_y.f, of_y.f)) / 2;
    error = at::maximum(error, at::maximum(of_x.error, of_y.error));
  }
  const auto kept = [&](const Tensor& t) { return at::where(problems.both, t, at::zeros_like(t)); };
  return {kept(value).to(x.scalar_type()), potentials, kept(error)};
}

Tensor2 sinkhorn_backward_chunked(const Tensor& grad_value, const Tensor& x, const Tensor& y,
                                  const Tensor& potentials, const SinkhornCall& call) {
  const Entropics problems(x, y, call);
  const int64_t m = x.size(2), n = y.size(2);
  const Tensor grad_x = at::zeros_like(problems.between.p);
  const Tensor grad_y = at::zeros_like(problems.between.q);
  if (x.numel() > 0 && y.numel() > 0) {
    const Tensor factor = at::where(problems.both, grad_value.to(grad_x.scalar_type()), 0);
    add_gradients(problems.between, potentials.narrow(2, 0, m), potentials.narrow(2, m, n), factor,
                  grad_x, grad_y);
    if (call.options.debiased) {
      const Tensor of_x = potentials.narrow(2, m + n, m), of_y = potentials.narrow(2, 2 * m + n, n);
      add_gradients(problems.x_self, of_x, of_x, factor / -2, grad_x, grad_x);
      add_gradients(problems.y_self, of_y, of_y, factor / -2, grad_y, grad_y);
    }
  }
  return {grad_x.to(x.scalar_type()), grad_y.to(y.scalar_type())};
}

namespace {

// Calls body(p, q, a, b, factor) for the three means that make up a discrepancy.
template <class Body>
void over_means(const Tensor& x, const Tensor& y, const Tensor& a, const Tensor& b,
                const Body& body) {
  body(0, 0, x, x, a, a, 1.0);
  body(1, 1, y, y, b, b, 1.0);
  body(0, 1, x, y, a, b, -2.0);
}

Tensor kernel_mean(const Tensor& p, const Tensor& q, const Tensor& a, const Tensor& b,
                   double bandwidth) {
  const Tensor kernel =
      (sinkhorn_cost(p, q, /*cosine=*/false) * (-1.0 / (bandwidth * bandwidth))).exp();
  return (a.unsqueeze(3) * b.unsqueeze(2) * kernel).sum({2, 3});
}

struct Weighted {
  Tensor x, y, a, b;
  Weighted(const Tensor& given_x, const Tensor& given_y, const DiscrepancyCall& call)
      : x(Sides::wide(given_x, call.query_mask)),
        y(Sides::wide(given_y, call.key_mask)),
        a(weights_of(x, call.query_mask)),
        b(weights_of(y, call.key_mask)) {
    const Tensor both = (a.sum(2, true) * b.sum(2, true) != 0).to(a.scalar_type());
    a = a * both;
    b = b * both;
  }
};

}  // namespace

Tensor discrepancy_chunked(const Tensor& x, const Tensor& y, const DiscrepancyCall& call) {
  const Weighted w(x, y, call);
  Tensor value = at::zeros({x.size(0), x.size(1)}, w.x.options());
  over_means(w.x, w.y, w.a, w.b,
             [&](int, int, const Tensor& p, const Tensor& q, const Tensor& a, const Tensor& b,
                 double factor) {
               for_each_chunk(p, q, [&](int64_t begin, int64_t rows) {
                 value = value + factor * kernel_mean(p.narrow(2, begin, rows), q,
                                                      a.narrow(2, begin, rows), b, call.bandwidth);
               });
             });
  return value.to(x.scalar_type());
}

Tensor2 discrepancy_backward_chunked(const Tensor& grad_value, const Tensor& x, const Tensor& y,
                                     const DiscrepancyCall& call) {
  const Weighted w(x, y, call);
  const Tensor grads[] = {at::zeros_like(w.x), at::zeros_like(w.y)};
  const Tensor upstream = grad_value.to(w.x.scalar_type());
  over_means(w.x, w.y, w.a, w.b,
             [&](int first, int second, const Tensor& p, const Tensor& q, const Tensor& a,
                 const Tensor& b, double factor) {
               for_each_chunk(p, q, [&](int64_t begin, int64_t rows) {
                 const auto found = gradients_of(
                     [&](const std::vector<Tensor>& t) {
                       return kernel_mean(t[0], t[1], a.narrow(2, begin, rows), b, call.bandwidth);
                     },
                     {p.narrow(2, begin, rows), q}, {true, true}, upstream * factor);
                 grads[first].narrow(2, begin, rows).add_(found[0]);
                 grads[second].add_(found[1]);
               });
             });
  return {grads[0].to(x.scalar_type()), grads[1].to(y.scalar_type())};
}

}  // namespace headloom

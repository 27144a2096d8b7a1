// Sinkhorn's algorithm in the log domain, and its gradients, on the processor.
//
// With k = log2(e) / eps the plan is pi_ij = 2^z_ij, z_ij = k x_i.y_j + phi_i + gamma_j + log2 a_i
// + log2 b_j: both costs are a product plus a term of each point, which the potentials phi and
// gamma absorb. f_i = phi_i / k + that term of x_i, g_j likewise.
#include <cmath>

#include "headloom/kernels/isa_table.h"
#include "headloom/mechanisms/alignment/point_cloud.h"
#include "headloom/mechanisms/alignment/sinkhorn_run.h"

HEADLOOM_ISA_TABLE(PairTable, pair_table)

namespace headloom {
namespace {

constexpr double kLog2E = 1.4426950408889634;

// The constant of the cosine cost, 1, as a term of the points: of x against y, and of a set against
// itself.
constexpr double kCosineX = 1.0, kCosineY = 0.0, kCosineSelf = 0.5;

template <class T>
using Numbers = std::vector<T>;

// One side of a problem: its points, the potential with log2 of the weight, and what the cost adds
// for each point.
template <class T>
class Side {
 public:
  Side(const PointCloud<T>& points, const SinkhornOptions& options, double cosine_term)
      : points(points),
        bias(static_cast<size_t>(points.padded())),
        log_weight(-std::log2(static_cast<double>(points.size()))),
        k_(kLog2E / options.eps),
        cosine_(options.cosine),
        cosine_term_(cosine_term) {}

  double weight() const { return 1.0 / static_cast<double>(points.size()); }
  // Of point i: f in the units of the cost.
  double potential(int64_t i) const {
    const double own = cosine_ ? cosine_term_ : static_cast<double>(points.half_square(i));
    return (static_cast<double>(bias[static_cast<size_t>(i)]) - log_weight) / k_ + own;
  }
  double mean_potential() const {
    double sum = 0;
    for (int64_t i = 0; i < points.size(); ++i) sum += potential(i);
    return sum * weight();
  }
  // The potential to begin with: half of the cost of each point to itself for a set to itself, 0
  // otherwise.
  void reset() {
    for (int64_t i = 0; i < points.size(); ++i) {
      const bool own = !cosine_ || cosine_term_ == kCosineSelf;
      const double start =
          own ? -k_ * static_cast<double>(points.half_square(i)) : -k_ * cosine_term_;
      bias[static_cast<size_t>(i)] = static_cast<T>(log_weight + start);
    }
  }
  void read(const T* from) { std::copy_n(from, points.size(), bias.data()); }
  void write(T* to) const { std::copy_n(bias.data(), points.size(), to); }

  const PointCloud<T>& points;
  Numbers<T> bias;  // [padded]
  double log_weight;

 private:
  double k_;
  bool cosine_;
  double cosine_term_;
};

// sum_j 2^z_ij of each query, and more sums when key_weight is given.
template <class T>
void sum_pairs(const Side<T>& queries, const Side<T>& keys, const kernels::PairSums<T>& out) {
  queries.points.against(keys.points, keys.bias.data(), queries.bias.data(),
                         [&](const auto& args, int64_t begin, int64_t end) {
                           pair_kernels<T>().sums(args, begin, end, out);
                         });
}

// Whether a sum of 2^z is neither too small nor too large to be exact.
template <class T>
bool is_sound(T sum) {
  return sum > T(0x1p-80) && sum < T(0x1p80);
}

// Rows of `from` marginals: their L1 distance from the weights.
template <class T>
double violation(const Side<T>& side, const Numbers<T>& sums) {
  double total = 0;
  for (int64_t i = 0; i < side.points.size(); ++i) {
    total += std::abs(static_cast<double>(sums[static_cast<size_t>(i)]) - side.weight());
  }
  return total;
}

// Moves the potential of `side` so that its marginals are `share` of the way (in logarithms) to
// their weights, given the marginals as they are.
template <class T>
void move(Side<T>& side, const Numbers<T>& sums, double share) {
  for (int64_t i = 0; i < side.points.size(); ++i) {
    const auto at = static_cast<size_t>(i);
    const double off = std::log2(static_cast<double>(sums[at])) - side.log_weight;
    side.bias[at] -= static_cast<T>(share * off);
  }
}

// The same without anything to start from.
template <class T>
void solve(Side<T>& side, const Side<T>& other) {
  Numbers<T> log_sums(side.bias.size());
  side.points.against(other.points, other.bias.data(), nullptr,
                      [&](const auto& args, int64_t begin, int64_t end) {
                        pair_kernels<T>().log_sum(args, begin, end, log_sums.data());
                      });
  for (int64_t i = 0; i < side.points.size(); ++i) {
    const auto at = static_cast<size_t>(i);
    side.bias[at] = static_cast<T>(side.log_weight) - log_sums[at];
  }
}

template <class T>
void update(Side<T>& side, const Side<T>& other) {
  Numbers<T> sums(side.bias.size());
  sum_pairs(side, other, {sums.data(), nullptr, nullptr, nullptr});
  const bool sound = std::all_of(sums.begin(), sums.begin() + side.points.size(), is_sound<T>);
  if (sound) {
    move(side, sums, 1.0);
  } else {
    solve(side, other);
  }
}

// Returns the violation of the rows; the columns are exact.
template <class T>
double iterate(Side<T>& x, Side<T>& y, const SinkhornOptions& options) {
  y.reset();
  solve(x, y);
  solve(y, x);
  Numbers<T> sums(x.bias.size());
  for (int64_t iteration = 1;; ++iteration) {
    sum_pairs(x, y, {sums.data(), nullptr, nullptr, nullptr});
    const double error = violation(x, sums);
    if (error <= options.tol || iteration >= options.max_iter) return error;
    const bool sound = std::all_of(sums.begin(), sums.begin() + x.points.size(), is_sound<T>);
    if (sound) {
      move(x, sums, 1.0);
    } else {
      solve(x, y);
    }
    update(y, x);
  }
}

// A set to itself: one potential, moved half of the way (Feydy et al., 2019, section 3).
template <class T>
double iterate(Side<T>& x, const SinkhornOptions& options) {
  x.reset();
  Numbers<T> sums(x.bias.size());
  for (int64_t iteration = 1;; ++iteration) {
    sum_pairs(x, x, {sums.data(), nullptr, nullptr, nullptr});
    const double error = violation(x, sums);
    if (error <= options.tol || iteration >= options.max_iter) return error;
    move(x, sums, 0.5);
  }
}

// sum_j pi_ij c_ij of each x.
template <class T>
std::vector<double> row_costs(const Side<T>& x, const Side<T>& y, const SinkhornOptions& options) {
  Numbers<T> g(y.bias.size()), sums(x.bias.size()), weighted(x.bias.size()), logs(x.bias.size());
  for (int64_t j = 0; j < y.points.size(); ++j) {
    g[static_cast<size_t>(j)] = static_cast<T>(y.potential(j));
  }
  sum_pairs(x, y, {sums.data(), g.data(), weighted.data(), logs.data()});
  // c = f + g - (z - log2 a - log2 b) / k
  const double per_log = options.eps / kLog2E, log_weights = x.log_weight + y.log_weight;
  std::vector<double> costs(static_cast<size_t>(x.points.size()));
  for (size_t i = 0; i < costs.size(); ++i) {
    const double sum = static_cast<double>(sums[i]);
    costs[i] = x.potential(static_cast<int64_t>(i)) * sum + static_cast<double>(weighted[i]) -
               per_log * (static_cast<double>(logs[i]) - log_weights * sum);
  }
  return costs;
}

template <class T>
double cost(const Side<T>& x, const Side<T>& y, const SinkhornOptions& options) {
  if (!options.sharp) return x.mean_potential() + y.mean_potential();
  double total = 0;
  for (const double row : row_costs(x, y, options)) total += row;
  return total;
}

// What the plan itself adds to the gradient of the sharp cost: lambda and mu with
//   a_i lambda_i + sum_j pi_ij mu_j = sum_j pi_ij c_ij,   and the same for the columns,
// by the Gauss-Seidel iteration of the two blocks. In the place of a_i stands the marginal that the
// plan has: the same when it has converged, and otherwise the iteration could grow without bound.
template <class T>
struct Correction {
  std::vector<double> of_x, of_y;

  Correction(const Side<T>& x, const Side<T>& y, const SinkhornOptions& options)
      : of_x(static_cast<size_t>(x.points.size())), of_y(static_cast<size_t>(y.points.size())) {
    const auto rows = row_costs(x, y, options), columns = row_costs(y, x, options);
    double scale = 0;
    for (const double row : rows) scale += std::abs(row);
    for (int64_t iteration = 0; iteration < options.max_iter; ++iteration) {
      const double moved = relax(x, rows, y, of_y, of_x);
      relax(y, columns, x, of_x, of_y);
      if (moved <= options.tol * scale) break;
    }
  }

  static double relax(const Side<T>& side, const std::vector<double>& costs, const Side<T>& other,
                      const std::vector<double>& of_other, std::vector<double>& solution) {
    Numbers<T> known(of_other.begin(), of_other.end()), sums(side.bias.size()),
        weighted(side.bias.size()), logs(side.bias.size());
    sum_pairs(side, other, {sums.data(), known.data(), weighted.data(), logs.data()});
    double moved = 0;
    for (size_t i = 0; i < solution.size(); ++i) {
      const double own = static_cast<double>(sums[i]);
      const double next = own > 0.0 ? (costs[i] - static_cast<double>(weighted[i])) / own : 0.0;
      moved += std::abs(next - solution[i]) * side.weight();
      solution[i] = next;
    }
    return moved;
  }
};

// The terms that the weights w_ij = dvalue/dc_ij are made of, for queries x and keys y.
template <class T>
struct Terms {
  Numbers<T> query, key;
  T log_term = 0;

  Terms(const Side<T>& x, const Side<T>& y)
      : query(x.bias.size(), T(1)), key(y.bias.size(), T(0)) {}

  // pi (1 - (c - lambda - mu) / eps), with c / eps = (f + g) / eps - ln 2 (z - log2 a - log2 b)
  Terms(const Side<T>& x, const std::vector<double>& of_x, const Side<T>& y,
        const std::vector<double>& of_y, const SinkhornOptions& options)
      : Terms(x, y) {
    const double ln2 = 1.0 / kLog2E, log_weights = x.log_weight + y.log_weight;
    for (size_t i = 0; i < of_x.size(); ++i) {
      const double rest = (of_x[i] - x.potential(static_cast<int64_t>(i))) / options.eps;
      query[i] = static_cast<T>(1.0 + rest - ln2 * log_weights);
    }
    for (size_t j = 0; j < of_y.size(); ++j) {
      key[j] = static_cast<T>((of_y[j] - y.potential(static_cast<int64_t>(j))) / options.eps);
    }
    log_term = static_cast<T>(ln2);
  }
};

template <class T>
void add_gradient(GradientRows<T>& rows, const Side<T>& x, const Side<T>& y, const Terms<T>& terms,
                  double factor, const SinkhornOptions& options) {
  rows.add(y.points, y.bias.data(), x.bias.data(),
           {terms.query.data(), terms.key.data(), terms.log_term, {}, {}, {}},
           static_cast<T>(factor), /*differences=*/!options.cosine);
}

// The problem between two sets, to both of them.
template <class T>
void add_gradients(GradientRows<T>& of_x, GradientRows<T>& of_y, const Side<T>& x, const Side<T>& y,
                   double factor, const SinkhornOptions& options) {
  if (options.sharp && options.implicit) {
    const Correction<T> found(x, y, options);
    add_gradient(of_x, x, y, Terms<T>(x, found.of_x, y, found.of_y, options), factor, options);
    add_gradient(of_y, y, x, Terms<T>(y, found.of_y, x, found.of_x, options), factor, options);
  } else {
    add_gradient(of_x, x, y, Terms<T>(x, y), factor, options);
    add_gradient(of_y, y, x, Terms<T>(y, x), factor, options);
  }
}

// All problems of one head: the two sets, and each to itself when debiased.
template <class S>
class Problems {
 public:
  using T = accumulator_t<S>;

  Problems(const SinkhornArgs<S>& args, int64_t head)
      : options_(args.options),
        from_x(args.x_points, args.x, args.width, args.heads, head),
        from_y(args.y_points, args.y, args.width, args.heads, head),
        x_points_(from_x, static_cast<T>(kLog2E / args.options.eps)),
        y_points_(from_y, static_cast<T>(kLog2E / args.options.eps)),
        x_(x_points_, options_, kCosineX),
        y_(y_points_, options_, kCosineY),
        x_self_(x_points_, options_, kCosineSelf),
        y_self_(y_points_, options_, kCosineSelf) {}

  const PointCloud<T>& x_cloud() const { return x_points_; }
  const PointCloud<T>& y_cloud() const { return y_points_; }

  // Returns the largest violation.
  double iterate_all() {
    double error = iterate(x_, y_, options_);
    if (options_.debiased) {
      error = std::max({error, iterate(x_self_, options_), iterate(y_self_, options_)});
    }
    return error;
  }
  double value() const {
    const double between = cost(x_, y_, options_);
    if (!options_.debiased) return between;
    return between - (cost(x_self_, x_self_, options_) + cost(y_self_, y_self_, options_)) / 2;
  }
  void add_all(GradientRows<T>& of_x, GradientRows<T>& of_y, double factor) const {
    add_gradients(of_x, of_y, x_, y_, factor, options_);
    if (!options_.debiased) return;
    // Half of the cost, and each point is in both arguments.
    add_gradient(of_x, x_self_, x_self_, self_terms(x_self_), -factor, options_);
    add_gradient(of_y, y_self_, y_self_, self_terms(y_self_), -factor, options_);
  }

  // state [2 (M + N)]
  template <class Visit>
  void visit_state(T* state, int64_t m, int64_t n, const Visit& visit) {
    visit(x_, state);
    visit(y_, state + m);
    visit(x_self_, state + m + n);
    visit(y_self_, state + 2 * m + n);
  }

 private:
  Terms<T> self_terms(const Side<T>& side) const {
    if (!options_.sharp || !options_.implicit) return Terms<T>(side, side);
    const Correction<T> found(side, side, options_);
    return Terms<T>(side, found.of_x, side, found.of_y, options_);
  }

  const SinkhornOptions& options_;

 public:
  const PointSource<S> from_x, from_y;

 private:
  PointCloud<T> x_points_, y_points_;
  Side<T> x_, y_, x_self_, y_self_;
};

template <class S>
bool is_empty(const SinkhornArgs<S>& args, int64_t head) {
  const int64_t batch = head / args.heads;
  return args.x_points.count[batch] == 0 || args.y_points.count[batch] == 0;
}

}  // namespace

template <class S>
void sinkhorn_forward(const SinkhornArgs<S>& args) {
  const int64_t m = args.x_points.points, n = args.y_points.points;
  for_each_head(args.batch * args.heads, [&](int64_t head) {
    args.value[head] = args.error[head] = 0;
    if (is_empty(args, head)) return;
    Problems<S> problems(args, head);
    args.error[head] = problems.iterate_all();
    args.value[head] = problems.value();
    problems.visit_state(args.potentials + head * 2 * (m + n), m, n,
                         [](const auto& side, auto* state) { side.write(state); });
  });
}

template <class S>
void sinkhorn_backward(const SinkhornArgs<S>& args) {
  using T = accumulator_t<S>;
  const int64_t m = args.x_points.points, n = args.y_points.points;
  for_each_head(args.batch * args.heads, [&](int64_t head) {
    if (is_empty(args, head)) return;
    Problems<S> problems(args, head);
    problems.visit_state(args.potentials + head * 2 * (m + n), m, n,
                         [](auto& side, auto* state) { side.read(state); });
    GradientRows<T> of_x(problems.x_cloud()), of_y(problems.y_cloud());
    problems.add_all(of_x, of_y, args.grad_value[head]);
    of_x.write(problems.from_x, args.grad_x + head * m * args.width);
    of_y.write(problems.from_y, args.grad_y + head * n * args.width);
  });
}

#define HEADLOOM_INSTANTIATE(S)                           \
  template void sinkhorn_forward(const SinkhornArgs<S>&); \
  template void sinkhorn_backward(const SinkhornArgs<S>&);
HEADLOOM_INSTANTIATE(double)
HEADLOOM_INSTANTIATE(float)
HEADLOOM_INSTANTIATE(BFloat16)
HEADLOOM_INSTANTIATE(Half)
#undef HEADLOOM_INSTANTIATE

}  // namespace headloom

// The squared maximum mean discrepancy and its gradient, on the processor.
#include <cmath>

#include "headloom/mechanisms/alignment/point_cloud.h"
#include "headloom/mechanisms/alignment/sinkhorn_run.h"

namespace headloom {
namespace {

constexpr double kLog2E = 1.4426950408889634;

// The kernel e^(-|x - y|^2 / (2 bandwidth^2)) in base 2.
template <class T>
class GaussianPairs {
 public:
  explicit GaussianPairs(double bandwidth) : factor_(kLog2E / (bandwidth * bandwidth)) {}
  T factor() const { return static_cast<T>(factor_); }

  std::vector<T> bias(const PointCloud<T>& cloud) const {
    std::vector<T> result(static_cast<size_t>(cloud.padded()));
    for (int64_t i = 0; i < cloud.size(); ++i) {
      result[static_cast<size_t>(i)] = -factor() * cloud.half_square(i);
    }
    return result;
  }

  // The mean over all pairs.
  double mean(const PointCloud<T>& x, const PointCloud<T>& y) const {
    const std::vector<T> x_bias = bias(x), y_bias = bias(y);
    std::vector<T> sums(static_cast<size_t>(x.padded()));
    x.against(y, y_bias.data(), x_bias.data(), [&](const auto& args, int64_t begin, int64_t end) {
      pair_kernels<T>().sums(args, begin, end, {sums.data(), nullptr, nullptr, nullptr});
    });
    double total = 0;
    for (int64_t i = 0; i < x.size(); ++i)
      total += static_cast<double>(sums[static_cast<size_t>(i)]);
    return total / (static_cast<double>(x.size()) * static_cast<double>(y.size()));
  }

  // Adds the gradient of weight * mean(x, y) with respect to x as the first argument.
  void add_gradient(GradientRows<T>& rows, const PointCloud<T>& x, const PointCloud<T>& y,
                    double weight) const {
    const std::vector<T> x_bias = bias(x), y_bias = bias(y);
    const std::vector<T> ones(x_bias.size(), T(1)), zeros(y_bias.size(), T(0));
    const double pairs = static_cast<double>(x.size()) * static_cast<double>(y.size());
    const double factor = -weight * factor_ / kLog2E / pairs;
    rows.add(y, y_bias.data(), x_bias.data(), {ones.data(), zeros.data(), T(0), {}, {}, {}},
             static_cast<T>(factor), /*differences=*/true);
  }

 private:
  double factor_;
};

}  // namespace

template <class S>
void discrepancy_forward(const DiscrepancyArgs<S>& args) {
  using T = accumulator_t<S>;
  const GaussianPairs<T> kernel(args.bandwidth);
  for_each_head(args.batch * args.heads, [&](int64_t head) {
    const PointSource<S> from_x(args.x_points, args.x, args.width, args.heads, head);
    const PointSource<S> from_y(args.y_points, args.y, args.width, args.heads, head);
    args.value[head] = 0;
    if (from_x.count == 0 || from_y.count == 0) return;
    const PointCloud<T> x(from_x, kernel.factor()), y(from_y, kernel.factor());
    args.value[head] = kernel.mean(x, x) + kernel.mean(y, y) - 2 * kernel.mean(x, y);
  });
}

template <class S>
void discrepancy_backward(const DiscrepancyArgs<S>& args) {
  using T = accumulator_t<S>;
  const GaussianPairs<T> kernel(args.bandwidth);
  for_each_head(args.batch * args.heads, [&](int64_t head) {
    const PointSource<S> from_x(args.x_points, args.x, args.width, args.heads, head);
    const PointSource<S> from_y(args.y_points, args.y, args.width, args.heads, head);
    if (from_x.count == 0 || from_y.count == 0) return;
    const PointCloud<T> x(from_x, kernel.factor()), y(from_y, kernel.factor());
    const double grad = args.grad_value[head];
    GradientRows<T> of_x(x), of_y(y);
    kernel.add_gradient(of_x, x, x, 2 * grad);  // each point is in both arguments
    kernel.add_gradient(of_x, x, y, -2 * grad);
    kernel.add_gradient(of_y, y, y, 2 * grad);
    kernel.add_gradient(of_y, y, x, -2 * grad);
    of_x.write(from_x, args.grad_x + head * args.x_points.points * args.width);
    of_y.write(from_y, args.grad_y + head * args.y_points.points * args.width);
  });
}

#define HEADLOOM_INSTANTIATE(S)                                 \
  template void discrepancy_forward(const DiscrepancyArgs<S>&); \
  template void discrepancy_backward(const DiscrepancyArgs<S>&);
HEADLOOM_INSTANTIATE(double)
HEADLOOM_INSTANTIATE(float)
HEADLOOM_INSTANTIATE(BFloat16)
HEADLOOM_INSTANTIATE(Half)
#undef HEADLOOM_INSTANTIATE

}  // namespace headloom

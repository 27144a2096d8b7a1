#include "headloom/mechanisms/cross_entropy.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "headloom/base/check.h"
#include "headloom/base/parallel.h"
#include "headloom/kernels/cross_entropy.h"
#include "headloom/kernels/isa_table.h"
#include "headloom/tensor/gradients.h"
#include "headloom/tensor/results.h"

// N rows, V vocabulary.
namespace headloom {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr const char* kWhere = "cross_entropy_sum";
constexpr int64_t kIgnored = -100;

// Rows that a thread takes at least, so that each has some 10^5 elements.
int64_t grain(const Tensor& logits) {
  return std::max<int64_t>(1, (1 << 17) / std::max<int64_t>(1, logits.size(1)));
}

template <class Body>
void with_kernels(const Tensor& logits, const Body& body) {
  const kernels::CrossEntropyTable& table = kernels::cross_entropy_table(kernels::active_isa());
  logits.scalar_type() == at::kDouble ? body(double{}, table.f64) : body(float{}, table.f32);
}

// The rows' maxima, sums of e^(x - maximum) and sums of x - maximum. [3, N]
Tensor row_sums(const Tensor& logits) {
  const int64_t N = logits.size(0), V = logits.size(1);
  const Tensor sums = at::empty({3, N}, logits.options());
  with_kernels(logits, [&](auto zero, const auto& kernels) {
    using T = decltype(zero);
    const T* x = logits.const_data_ptr<T>();
    T* out = sums.mutable_data_ptr<T>();
    parallel_for(0, N, grain(logits), [&](int64_t begin, int64_t end) {
      kernels.row_sums(
          {end - begin, V, x + begin * V, V, out + begin, out + N + begin, out + 2 * N + begin});
    });
  });
  return sums;
}

// The losses in the order of the rows, so that the sum is the same with any number of threads.
double sum_of_losses(const Tensor& logits, const Tensor& targets, const Tensor& sums,
                     double smoothing) {
  const int64_t N = logits.size(0), V = logits.size(1);
  const int64_t* wanted = targets.const_data_ptr<int64_t>();
  double total = 0.0;
  with_kernels(logits, [&](auto zero, const auto&) {
    using T = decltype(zero);
    const T *x = logits.const_data_ptr<T>(), *maximum = sums.const_data_ptr<T>();
    for (int64_t row = 0; row < N; ++row) {
      if (wanted[row] == kIgnored) continue;
      total += std::log(static_cast<double>(maximum[N + row])) -
               (1.0 - smoothing) * (static_cast<double>(x[row * V + wanted[row]]) - maximum[row]);
      if (smoothing > 0.0) total -= smoothing / static_cast<double>(V) * maximum[2 * N + row];
    }
  });
  return total;
}

Tensor gradient(const Tensor& logits, const Tensor& targets, const Tensor& sums, double smoothing,
                double scale) {
  const int64_t N = logits.size(0), V = logits.size(1);
  const Tensor grad = empty_result(logits.sizes(), logits.options());
  const int64_t* wanted = targets.const_data_ptr<int64_t>();
  with_kernels(logits, [&](auto zero, const auto& kernels) {
    using T = decltype(zero);
    const T *x = logits.const_data_ptr<T>(), *rows = sums.const_data_ptr<T>();
    T* out = grad.mutable_data_ptr<T>();
    parallel_for(0, N, grain(logits), [&](int64_t begin, int64_t end) {
      kernels.grad({end - begin, V, x + begin * V, V, rows + begin, rows + N + begin,
                    wanted + begin, smoothing, scale, out + begin * V, V});
    });
  });
  return grad;
}

class CrossEntropySum : public torch::autograd::Function<CrossEntropySum> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& logits, const Tensor& targets,
                        double smoothing) {
    const Tensor sums = row_sums(logits);
    context->save_for_backward({logits, targets, sums});
    context->saved_data["smoothing"] = smoothing;
    return at::scalar_tensor(sum_of_losses(logits, targets, sums, smoothing), logits.options());
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    HEADLOOM_CHECK(!needs_graph({saved[0], grads[0]}), kWhere, "a first derivative",
                   "create_graph, which asks for a second one",
                   "Use at::cross_entropy_loss where second derivatives are needed.");
    return {gradient(saved[0], saved[1], saved[2], context->saved_data["smoothing"].toDouble(),
                     grads[0].item<double>()),
            Tensor(), Tensor()};
  }
};

void check_targets(const Tensor& targets, int64_t vocabulary) {
  if (targets.numel() == 0) return;
  const int64_t* wanted = targets.const_data_ptr<int64_t>();
  for (int64_t row = 0; row < targets.size(0); ++row) {
    HEADLOOM_CHECK((wanted[row] >= 0 && wanted[row] < vocabulary) || wanted[row] == kIgnored,
                   kWhere, cat("targets from 0 to ", vocabulary - 1, ", or ", kIgnored),
                   cat(wanted[row], " in row ", row));
  }
}

}  // namespace

Tensor cross_entropy_sum(const Tensor& logits, const Tensor& targets, double smoothing) {
  HEADLOOM_CHECK(logits.dim() == 2 && targets.dim() == 1 && logits.size(0) == targets.size(0),
                 kWhere, "logits [N, V] and targets [N]",
                 cat("shapes ", logits.sizes(), " and ", targets.sizes()));
  HEADLOOM_CHECK(targets.scalar_type() == at::kLong, kWhere, "targets of int64",
                 cat(targets.scalar_type()));
  HEADLOOM_CHECK(smoothing >= 0.0 && smoothing < 1.0, kWhere, "smoothing in [0, 1)",
                 cat(smoothing));
  const bool wide = logits.scalar_type() == at::kDouble;
  const Tensor x = wide ? logits : logits.to(at::kFloat);
  if (!x.is_cpu()) {
    return at::cross_entropy_loss(x, targets, {}, at::Reduction::Sum, kIgnored, smoothing);
  }
  const Tensor wanted = targets.contiguous();
  check_targets(wanted, x.size(1));
  return CrossEntropySum::apply(x.contiguous(), wanted, smoothing);
}

}  // namespace headloom

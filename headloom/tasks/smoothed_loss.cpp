#include "headloom/tasks/smoothed_loss.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "headloom/base/check.h"

// N rows, V vocabulary.
namespace headloom::tasks {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Elements of logits that are worked on at once, few enough for a processor's cache.
constexpr int64_t kChunk = 1 << 18;

template <class Body>
void for_chunks(const Tensor& logits, const Body& body) {
  const int64_t rows = logits.size(0);
  const int64_t step = logits.is_cpu()
                           ? std::max<int64_t>(1, kChunk / std::max<int64_t>(1, logits.size(1)))
                           : std::max<int64_t>(1, rows);
  for (int64_t begin = 0; begin < rows; begin += step) body(begin, std::min(step, rows - begin));
}

class SmoothedCrossEntropy : public torch::autograd::Function<SmoothedCrossEntropy> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& logits, const Tensor& targets,
                        double smoothing) {
    const Tensor counted = targets.ne(-100);
    const Tensor known = targets.masked_fill(counted.logical_not(), 0).unsqueeze(1);  // [N, 1]
    const Tensor log_sums = at::empty({logits.size(0), 1}, logits.options());
    Tensor total = at::zeros({}, logits.options());
    for_chunks(logits, [&](int64_t begin, int64_t count) {
      const Tensor chunk = logits.narrow(0, begin, count);
      const Tensor largest = chunk.amax(1, true);
      const Tensor sums = (chunk - largest).exp_().sum(1, true).log_().add_(largest);
      log_sums.narrow(0, begin, count).copy_(sums);
      Tensor losses = sums - (1.0 - smoothing) * chunk.gather(1, known.narrow(0, begin, count));
      if (smoothing > 0.0) losses.sub_(chunk.mean(1, true), smoothing);
      total.add_(losses.squeeze(1).mul_(counted.narrow(0, begin, count)).sum());
    });
    context->save_for_backward({logits, known, counted, log_sums});
    context->saved_data["smoothing"] = smoothing;
    return total;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const Tensor &logits = saved[0], &known = saved[1], &counted = saved[2], &log_sums = saved[3];
    const double smoothing = context->saved_data["smoothing"].toDouble();
    const double share = smoothing / static_cast<double>(logits.size(1));
    const Tensor scale = (counted * grads[0]).to(logits.scalar_type()).unsqueeze(1);  // [N, 1]
    const Tensor grad_logits = at::empty_like(logits);
    for_chunks(logits, [&](int64_t begin, int64_t count) {
      Tensor chunk = grad_logits.narrow(0, begin, count);
      at::sub_out(chunk, logits.narrow(0, begin, count), log_sums.narrow(0, begin, count));
      chunk.exp_();
      if (share > 0.0) chunk.sub_(share);
      const Tensor targets = known.narrow(0, begin, count);
      chunk.scatter_add_(1, targets, at::full_like(targets, smoothing - 1.0, chunk.options()));
      chunk.mul_(scale.narrow(0, begin, count));
    });
    return {grad_logits, Tensor(), Tensor()};
  }
};

}  // namespace

Tensor smoothed_cross_entropy(const Tensor& logits, const Tensor& targets, double smoothing) {
  HEADLOOM_CHECK(logits.dim() == 2 && targets.dim() == 1 && logits.size(0) == targets.size(0),
                 "smoothed_cross_entropy", "logits [N, V] and targets [N]",
                 cat("shapes ", logits.sizes(), " and ", targets.sizes()));
  HEADLOOM_CHECK(smoothing >= 0.0 && smoothing < 1.0, "smoothed_cross_entropy",
                 "smoothing in [0, 1)", cat(smoothing));
  return SmoothedCrossEntropy::apply(logits, targets, smoothing);
}

}  // namespace headloom::tasks

#include "headloom/tasks/classification/binary_metrics.h"

#include <cmath>

namespace headloom::tasks::classification {

double accuracy(const Confusion& counts) {
  const double right = counts.true_positive + counts.true_negative;
  return right / (right + counts.false_positive + counts.false_negative);
}

double f1(const Confusion& counts) {
  const double twice = 2 * counts.true_positive;
  return twice == 0 ? 0.0 : twice / (twice + counts.false_positive + counts.false_negative);
}

double matthews(const Confusion& counts) {
  const auto& [tp, fp, fn, tn] = counts;
  const double product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn);
  return product == 0 ? 0.0 : (tp * tn - fp * fn) / std::sqrt(product);
}

}  // namespace headloom::tasks::classification

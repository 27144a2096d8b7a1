#include "headloom/tasks/binary_metrics.h"

#include <ATen/ATen.h>

#include <cmath>

#include "headloom/mechanisms/cross_entropy.h"
#include "headloom/tasks/metrics.h"

namespace headloom::tasks {

using at::Tensor;

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

void add_binary(const Tensor& logits, const Tensor& targets, Totals& totals) {
  const Tensor found = logits.argmax(1) == 1, wanted = targets == 1;
  const auto count = [](const Tensor& rows) { return rows.sum().item<double>(); };
  totals["nats"] += cross_entropy_sum(logits, targets).item<double>();
  totals["examples"] += static_cast<double>(targets.size(0));
  add_calibration(logits.softmax(1), targets, totals);
  totals["true_positive"] += count(found.logical_and(wanted));
  totals["false_positive"] += count(found.logical_and(wanted.logical_not()));
  totals["false_negative"] += count(wanted.logical_and(found.logical_not()));
  totals["true_negative"] += count(found.logical_or(wanted).logical_not());
}

Metrics binary_metrics(const Totals& totals) {
  const Confusion counts{totals.at("true_positive"), totals.at("false_positive"),
                         totals.at("false_negative"), totals.at("true_negative")};
  return {{"loss", totals.at("nats") / totals.at("examples")},
          {"accuracy", accuracy(counts)},
          {"f1", f1(counts)},
          {"matthews", matthews(counts)},
          {"ece", expected_calibration_error(totals)}};
}

}  // namespace headloom::tasks

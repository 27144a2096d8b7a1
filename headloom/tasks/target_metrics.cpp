#include "headloom/tasks/target_metrics.h"

#include <ATen/ATen.h>

#include <cmath>

#include "headloom/mechanisms/cross_entropy.h"

namespace headloom::tasks {

using at::Tensor;

Loss target_loss(const Tensor& logits, const Batch& batch, double label_smoothing) {
  return {cross_entropy_sum(logits.flatten(0, 1), batch.targets.flatten(), label_smoothing),
          static_cast<double>(batch.token_count)};
}

void measure_targets(const Tensor& logits, const Batch& batch, Totals& totals) {
  const Tensor targets = batch.targets.flatten();
  const Tensor rows = logits.flatten(0, 1);  // [B T, V]
  totals["nats"] += cross_entropy_sum(rows, targets, 0.0).item<double>();
  totals["right"] += rows.argmax(1).eq(targets).sum().item<double>();
  totals["tokens"] += static_cast<double>(batch.token_count);
}

Metrics target_metrics(const Totals& totals) {
  const double nats = totals.at("nats") / totals.at("tokens");
  return {{"nats_per_token", nats},
          {"perplexity", std::exp(nats)},
          {"token_accuracy", totals.at("right") / totals.at("tokens")}};
}

}  // namespace headloom::tasks

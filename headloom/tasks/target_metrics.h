#pragma once

#include "headloom/tasks/task.h"

// What the tasks that predict a text are trained and measured by: figures per target token, the end
// included. B batch, T target tokens, V vocabulary.
namespace headloom::tasks {

// logits [B, T, V]; the loss is cross_entropy_sum() (cross_entropy.h).
Loss target_loss(const at::Tensor& logits, const Batch& batch, double label_smoothing);
// Adds a batch, without label smoothing.
void measure_targets(const at::Tensor& logits, const Batch& batch, Totals& totals);
// nats_per_token, perplexity, token_accuracy.
Metrics target_metrics(const Totals& totals);

}  // namespace headloom::tasks

#pragma once

#include "headloom/tasks/task.h"

namespace headloom::tasks {

// How often two classes were found and missed; class 1 is the positive one.
struct Confusion {
  double true_positive = 0, false_positive = 0, false_negative = 0, true_negative = 0;
};

double accuracy(const Confusion& counts);
// 2 tp / (2 tp + fp + fn); 0 when there is no positive.
double f1(const Confusion& counts);
// Matthews' correlation, -1 to 1; 0 when one of the classes never occurs or is never predicted.
double matthews(const Confusion& counts);

// The measures of GLUE's tasks of two classes. Adds a batch: logits [B, 2], of which only the
// differences within a row count, and targets [B].
void add_binary(const at::Tensor& logits, const at::Tensor& targets, Totals& totals);
// loss, the negative log-likelihood in nats; accuracy; f1; matthews; ece, the expected calibration
// error in per cent (metrics.h).
Metrics binary_metrics(const Totals& totals);

}  // namespace headloom::tasks

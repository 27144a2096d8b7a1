#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "headloom/tasks/task.h"

// Measures of how well a classifier knows what it knows. N examples, K classes, S samples.
namespace headloom::tasks {

// Calibration in ten equal bins of confidence, the largest probability: bin j holds j/10 <=
// confidence < (j + 1)/10, and 1 is in the last (Guo et al., 2017).

// Adds a batch: probabilities [N, K], targets [N].
void add_calibration(const at::Tensor& probabilities, const at::Tensor& targets, Totals& totals);
// Expected and maximum calibration error in per cent: the mean, weighted by the examples of a bin,
// and the largest, of |accuracy - mean confidence|. Empty bins count for nothing.
double expected_calibration_error(const Totals& totals);
double maximum_calibration_error(const Totals& totals);

// Mean -log of the probability of the target.
double negative_log_likelihood(const at::Tensor& probabilities, const at::Tensor& targets);

// Of samples [S, N, K] of probabilities, per example [N], in nats: the entropy of their mean; and
// that less the mean of their entropies, the mutual information with whatever the samples drew.
at::Tensor predictive_entropy(const at::Tensor& samples);
at::Tensor mutual_information(const at::Tensor& samples);

struct TTest {
  double t, degrees, p;  // p: two-sided
};
// Of differences with zero variance: p is 1 where the means are equal and 0 otherwise.
TTest paired_t_test(const std::vector<double>& x, const std::vector<double>& y);
TTest welch_t_test(const std::vector<double>& x, const std::vector<double>& y);
// P(|T| >= |t|) with the given degrees of freedom.
double two_sided_p(double t, double degrees);

enum class Certainty {
  kPairedLogits,        // the two classes' logits by a paired test (graphs)
  kWelchProbabilities,  // their probabilities by Welch's test (visual questions)
};
// The share of examples that are accurate and certain or inaccurate and uncertain (Mukhoti and Gal,
// 2018). The two classes of the largest mean probability over the samples are compared; an example
// is certain where p <= threshold. accuracy [N] may be fractional: the scored prediction's. samples
// [S, N, K] are logits, or with kWelchProbabilities whatever is to be compared, such as sigmoids.
double patch_accuracy_vs_uncertainty(const at::Tensor& samples, const at::Tensor& accuracy,
                                     Certainty certainty, double threshold = 0.05);

}  // namespace headloom::tasks

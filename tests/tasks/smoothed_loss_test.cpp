// N rows, V vocabulary.
#include "headloom/tasks/smoothed_loss.h"

#include <torch/torch.h>

#include "tests/support/closeness.h"
#include "tests/tasks/support.h"

namespace headloom::tasks {
namespace {

using at::Tensor;
using ::testing::HasSubstr;

struct Problem {
  Tensor logits, targets;
};

Problem problem(int64_t rows, int64_t vocabulary) {
  at::manual_seed(3);
  const Tensor logits = at::randn({rows, vocabulary}, at::kDouble) * 3.0;
  const Tensor targets = at::randint(vocabulary, {rows}, at::kLong);
  for (int64_t row = 0; row < rows; row += 5) targets[row] = -100;
  return {logits, targets};
}

// The formula, by torch.
Tensor expected_loss(const Problem& p, double smoothing) {
  return at::cross_entropy_loss(p.logits, p.targets, {}, at::Reduction::Sum, -100, smoothing);
}

void expect_near(const Tensor& found, const Tensor& expected) {
  const auto difference = headloom::testing::differs_from_golden(found, expected);
  EXPECT_FALSE(difference) << *difference;
}

TEST(SmoothedCrossEntropy, IsTorchsWithItsGradient) {
  // The second does not fit into one chunk.
  for (const auto& [rows, vocabulary] : {std::pair{7, 5}, std::pair{70, 9001}}) {
    for (const double smoothing : {0.0, 0.1, 0.6}) {
      Problem p = problem(rows, vocabulary);
      p.logits.requires_grad_();
      const Tensor scale = at::scalar_tensor(0.7, at::kDouble);
      const Tensor expected = expected_loss(p, smoothing);
      const Tensor expected_grad = torch::autograd::grad({expected * scale}, {p.logits})[0];
      const Tensor found = smoothed_cross_entropy(p.logits, p.targets, smoothing);
      expect_near(found, expected);
      expect_near(torch::autograd::grad({found * scale}, {p.logits})[0], expected_grad);
    }
  }
}

TEST(SmoothedCrossEntropy, HoldsOutLargeLogits) {
  const Tensor logits =
      at::tensor({1000.0, -1000.0, 3e4}, at::kFloat).view({1, 3}).requires_grad_();
  const Tensor loss = smoothed_cross_entropy(logits, at::tensor({2}, at::kLong), 0.0);
  EXPECT_EQ(loss.item<double>(), 0.0);
  loss.backward();
  EXPECT_TRUE(logits.grad().isfinite().all().item<bool>());
}

TEST(SmoothedCrossEntropy, NothingToPredictIsZero) {
  const Tensor logits = at::randn({3, 4}).requires_grad_();
  const Tensor loss = smoothed_cross_entropy(logits, at::full({3}, -100, at::kLong), 0.1);
  loss.backward();
  EXPECT_EQ(loss.item<double>(), 0.0);
  EXPECT_EQ(logits.grad().abs().max().item<double>(), 0.0);
  EXPECT_EQ(
      smoothed_cross_entropy(at::randn({0, 4}), at::zeros({0}, at::kLong), 0.1).item<double>(),
      0.0);
}

TEST(SmoothedCrossEntropy, RefusesOtherShapes) {
  EXPECT_THAT(message_of([] {
                smoothed_cross_entropy(at::zeros({2, 3}), at::zeros({3}, at::kLong), 0.1);
              }),
              HasSubstr("logits [N, V] and targets [N]; found shapes [2, 3] and [3]"));
  EXPECT_THAT(message_of([] {
                smoothed_cross_entropy(at::zeros({2, 3}), at::zeros({2}, at::kLong), 1.0);
              }),
              HasSubstr("smoothing in [0, 1)"));
}

}  // namespace
}  // namespace headloom::tasks

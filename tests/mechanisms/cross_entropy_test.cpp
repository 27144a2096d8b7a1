// N rows, V vocabulary.
#include "headloom/mechanisms/cross_entropy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "headloom/kernels/isa.h"
#include "tests/support/closeness.h"
#include "tests/support/message_of.h"

namespace headloom {
namespace {

using at::Tensor;
using ::testing::HasSubstr;
using testing::message_of;

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

void expect_torchs(int rows, int vocabulary) {
  for (const double smoothing : {0.0, 0.1, 0.6}) {
    Problem p = problem(rows, vocabulary);
    p.logits.requires_grad_();
    const Tensor scale = at::scalar_tensor(0.7, at::kDouble);
    const Tensor expected = expected_loss(p, smoothing);
    const Tensor expected_grad = torch::autograd::grad({expected * scale}, {p.logits})[0];
    const Tensor found = cross_entropy_sum(p.logits, p.targets, smoothing);
    expect_near(found, expected);
    expect_near(torch::autograd::grad({found * scale}, {p.logits})[0], expected_grad);
  }
}

TEST(CrossEntropySum, IsTorchsWithItsGradient) {
  const kernels::Isa usual = kernels::active_isa();
  for (const kernels::Isa isa : kernels::available_isas()) {
    kernels::use_isa(isa);
    // The second is more than a thread's share.
    expect_torchs(7, 5);
    expect_torchs(70, 9001);
  }
  kernels::use_isa(usual);
}

TEST(CrossEntropySum, WidensTwoByteLogitsAndReadsAnyStrides) {
  const Problem p = problem(9, 6);
  const Tensor strided = p.logits.t().contiguous().t();
  expect_near(cross_entropy_sum(strided, p.targets, 0.1), expected_loss(p, 0.1));
  const Tensor half = p.logits.to(at::kBFloat16);
  const Tensor loss = cross_entropy_sum(half, p.targets);
  EXPECT_EQ(loss.scalar_type(), at::kFloat);
  EXPECT_TRUE(at::equal(loss, cross_entropy_sum(half.to(at::kFloat), p.targets)));
}

TEST(CrossEntropySum, HoldsOutLargeLogits) {
  const Tensor logits =
      at::tensor({1000.0, -1000.0, 3e4}, at::kFloat).view({1, 3}).requires_grad_();
  const Tensor loss = cross_entropy_sum(logits, at::tensor({2}, at::kLong), 0.0);
  EXPECT_EQ(loss.item<double>(), 0.0);
  loss.backward();
  EXPECT_TRUE(logits.grad().isfinite().all().item<bool>());
}

TEST(CrossEntropySum, NothingToPredictIsZero) {
  const Tensor logits = at::randn({3, 4}).requires_grad_();
  const Tensor loss = cross_entropy_sum(logits, at::full({3}, -100, at::kLong), 0.1);
  loss.backward();
  EXPECT_EQ(loss.item<double>(), 0.0);
  EXPECT_EQ(logits.grad().abs().max().item<double>(), 0.0);
  EXPECT_EQ(cross_entropy_sum(at::randn({0, 4}), at::zeros({0}, at::kLong), 0.1).item<double>(),
            0.0);
}

TEST(CrossEntropySum, RefusesOtherShapes) {
  EXPECT_THAT(message_of([] {
                cross_entropy_sum(at::zeros({2, 3}), at::zeros({3}, at::kLong), 0.1);
              }),
              HasSubstr("logits [N, V] and targets [N]; found shapes [2, 3] and [3]"));
  EXPECT_THAT(message_of([] {
                cross_entropy_sum(at::zeros({2, 3}), at::zeros({2}, at::kLong), 1.0);
              }),
              HasSubstr("smoothing in [0, 1)"));
  for (const int64_t target : {-1, 3}) {
    EXPECT_THAT(message_of([&] {
                  cross_entropy_sum(at::zeros({1, 3}), at::full({1}, target, at::kLong));
                }),
                HasSubstr(cat("targets from 0 to 2, or -100; found ", target, " in row 0")));
  }
}

TEST(CrossEntropySum, RefusesASecondDerivative) {
  const Tensor logits = at::randn({3, 4}).requires_grad_();
  const Tensor loss = cross_entropy_sum(logits, at::zeros({3}, at::kLong));
  EXPECT_THAT(message_of([&] { torch::autograd::grad({loss}, {logits}, {}, true, true); }),
              HasSubstr("Use at::cross_entropy_loss"));
}

}  // namespace
}  // namespace headloom

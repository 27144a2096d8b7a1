#include "headloom/tensor/gradients.h"

#include <ATen/ATen.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

namespace headloom {
namespace {

using at::Tensor;

Tensor product(const std::vector<Tensor>& x) {
  return x[0] * x[0] * x[1];
}

const Tensor kA = at::tensor({1.0, 2.0}), kB = at::tensor({3.0, -1.0}), kG = at::tensor({0.5, 2.0});

TEST(GradientsOf, TheWantedOnes) {
  const auto both = gradients_of(product, {kA, kB}, {true, true}, kG);
  EXPECT_TRUE(at::allclose(both[0], 2 * kA * kB * kG));
  EXPECT_TRUE(at::allclose(both[1], kA * kA * kG));
  const auto one = gradients_of(product, {kA, kB}, {false, true}, kG);
  EXPECT_FALSE(one[0].defined());
  EXPECT_TRUE(at::allclose(one[1], both[1]));
}

TEST(GradientsOf, NothingWantedRunsNothing) {
  const auto none =
      gradients_of([](const std::vector<Tensor>&) -> Tensor { throw std::runtime_error("called"); },
                   {kA}, {false}, kG);
  EXPECT_FALSE(none[0].defined());
}

TEST(GradientsOf, AbsentInputsAreSkipped) {
  const auto found = gradients_of([](const std::vector<Tensor>& x) { return 2 * x[0]; },
                                  {kA, Tensor()}, {true, true}, kG);
  EXPECT_TRUE(at::allclose(found[0], 2 * kG));
  EXPECT_FALSE(found[1].defined());
}

TEST(GradientsOf, UnusedInputGetsZeros) {
  const auto found = gradients_of([](const std::vector<Tensor>& x) { return 2 * x[0]; }, {kA, kB},
                                  {true, true}, kG);
  EXPECT_TRUE(at::equal(found[1], at::zeros_like(kB)));
}

TEST(GradientsOf, WorksBelowAutograd) {
  const at::AutoDispatchBelowADInplaceOrView below;
  const at::NoGradGuard off;
  const auto found = gradients_of(product, {kA, kB}, {true, true}, kG);
  EXPECT_TRUE(at::allclose(found[1], kA * kA * kG));
  EXPECT_FALSE(found[0].requires_grad());
}

TEST(GradientsOf, LeavesTheCallersTensorsAlone) {
  const Tensor a = kA.clone();
  gradients_of(product, {a, kB}, {true, true}, kG);
  EXPECT_FALSE(a.requires_grad());
  EXPECT_FALSE(a.grad().defined());
}

TEST(GradientsOf, WithAGraphTheyAreDifferentiable) {
  const Tensor a = kA.clone().requires_grad_(true), b = kB.clone().requires_grad_(true);
  const auto first = gradients_of(product, {a, b}, {true, true}, kG, /*create_graph=*/true);
  const auto second = torch::autograd::grad({first[0].sum()}, {a, b});
  EXPECT_TRUE(at::allclose(second[0], 2 * kB * kG));
  EXPECT_TRUE(at::allclose(second[1], 2 * kA * kG));
}

TEST(GradientsOf, WithAGraphThroughTheOutputsGradient) {
  const Tensor g = kG.clone().requires_grad_(true);
  const auto first = gradients_of(product, {kA, kB}, {true, false}, g, /*create_graph=*/true);
  const auto second = torch::autograd::grad({first[0].sum()}, {g});
  EXPECT_TRUE(at::allclose(second[0], 2 * kA * kB));
}

TEST(GradientsOf, WithAGraphTakesTensorsInsideAGraph) {
  const Tensor leaf = kA.clone().requires_grad_(true);
  const Tensor inner = 3 * leaf;
  const auto first = gradients_of(product, {inner, kB}, {true, false}, kG, /*create_graph=*/true);
  const auto second = torch::autograd::grad({first[0].sum()}, {leaf});
  EXPECT_TRUE(at::allclose(second[0], 3 * 2 * kB * kG));
}

TEST(Optional, ThereAndBack) {
  EXPECT_FALSE(value_or_undefined(std::nullopt).defined());
  EXPECT_TRUE(value_or_undefined(kA).is_same(kA));
  EXPECT_FALSE(as_optional(Tensor()).has_value());
  EXPECT_TRUE(as_optional(kA)->is_same(kA));
}

TEST(OrEmpty, StandsInForNoGradient) {
  EXPECT_EQ(or_empty(Tensor(), kA.to(at::kFloat)).sizes(), at::IntArrayRef({0}));
  EXPECT_EQ(or_empty(Tensor(), kA.to(at::kFloat)).scalar_type(), at::kFloat);
  EXPECT_TRUE(or_empty(kA, kB).is_same(kA));
  EXPECT_FALSE(or_undefined(kA, false).defined());
  EXPECT_TRUE(or_undefined(kA, true).is_same(kA));
}

TEST(NeedsGraph, OnlyWhereAutogradRecords) {
  const Tensor leaf = kA.clone().requires_grad_(true);
  EXPECT_TRUE(needs_graph({kA, Tensor(), leaf}));
  EXPECT_FALSE(needs_graph({kA, Tensor()}));
  const at::NoGradGuard off;
  EXPECT_FALSE(needs_graph({leaf}));
}

}  // namespace
}  // namespace headloom

#include "headloom/mechanisms/dropout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "headloom/tensor/dropout.h"
#include "tests/support/message_of.h"

namespace headloom {
namespace {

using at::Tensor;

// The seed that the next dropout will draw.
Tensor next_seed() {
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  const Tensor state = generator.get_state(), seed = new_seed();
  generator.set_state(state);
  return seed;
}

TEST(Dropout, MultipliesByTheMaskOfItsSeed) {
  torch::manual_seed(11);
  for (const auto type : {at::kDouble, at::kFloat}) {
    // More than a thread's share, and strides that are not those of the result.
    const Tensor x = at::randn({7, 41, 193}, type).transpose(0, 2).requires_grad_();
    const Tensor mask = dropout_mask(x.sizes(), 0.3, next_seed(), x.options());
    const Tensor y = headloom::dropout(x, 0.3, true), grad = at::randn_like(y);
    EXPECT_TRUE(at::equal(y, x * mask)) << type;
    EXPECT_TRUE(at::equal(torch::autograd::grad({y}, {x}, {grad})[0], grad * mask)) << type;
  }
}

TEST(Dropout, IsDifferentiableTwice) {
  const Tensor x = at::randn({50}, at::kDouble).requires_grad_();
  const Tensor mask = dropout_mask({50}, 0.5, next_seed(), x.options());
  const Tensor slope =
      torch::autograd::grad({headloom::dropout(x, 0.5, true).pow(3).sum()}, {x}, {}, true, true)[0];
  const Tensor second = torch::autograd::grad({slope.sum()}, {x})[0];
  EXPECT_TRUE(at::allclose(second, 6.0 * x * mask.pow(3)));
}

TEST(Dropout, WithoutTrainingOrProbabilityNothingIsDrawn) {
  const Tensor x = at::randn({5}), seed = next_seed();
  EXPECT_TRUE(headloom::dropout(x, 0.5, false).is_same(x));
  EXPECT_TRUE(headloom::dropout(x, 0.0, true).is_same(x));
  EXPECT_TRUE(at::equal(seed, next_seed()));
}

TEST(Dropout, RefusesOtherProbabilities) {
  EXPECT_THAT(testing::message_of([] { headloom::dropout(at::zeros({2}), 1.0, true); }),
              ::testing::HasSubstr("p from 0 to below 1"));
}

}  // namespace
}  // namespace headloom

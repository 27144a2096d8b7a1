#include "headloom/tensor/dropout.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <vector>

#include "headloom/base/rng.h"
#include "tests/support/closeness.h"

namespace headloom {
namespace {

using at::Tensor;

const at::TensorOptions kFloat = at::TensorOptions().dtype(at::kFloat);

Tensor seed(int64_t value) {
  return at::scalar_tensor(value, at::kLong);
}

TEST(NewSeed, FollowsTorchsGenerator) {
  torch::manual_seed(3);
  const Tensor first = new_seed(), second = new_seed();
  torch::manual_seed(3);
  EXPECT_TRUE(at::equal(new_seed(), first));
  EXPECT_FALSE(at::equal(first, second));
  EXPECT_EQ(first.dim(), 0);
  EXPECT_EQ(first.scalar_type(), at::kLong);
}

TEST(DropoutMask, DecidesByRowMajorIndex) {
  const double p = 0.3;
  const Tensor mask = dropout_mask({3, 4, 5}, p, seed(9), kFloat);
  const Tensor flat = mask.reshape({-1});
  const auto kept = static_cast<float>(1.0 / (1.0 - p));
  for (int64_t i = 0; i < flat.numel(); ++i) {
    EXPECT_EQ(flat[i].item<float>(), dropout_keeps(9, i, drop_threshold(p)) ? kept : 0.0f) << i;
  }
}

TEST(DropoutMask, PartsAreCutFromTheWhole) {
  const std::vector<int64_t> sizes{3, 6, 5};
  const Tensor whole = dropout_mask(sizes, 0.5, seed(2), kFloat);
  for (int64_t dim = 0; dim < 3; ++dim) {
    const Tensor part = dropout_mask(sizes, 0.5, seed(2), kFloat, dim, 1, 3);
    EXPECT_TRUE(at::equal(part, whole.narrow(dim, 1, 2))) << dim;
    EXPECT_EQ(dropout_mask(sizes, 0.5, seed(2), kFloat, dim, 2, 2).size(dim), 0) << dim;
  }
}

TEST(DropoutMask, KeepsItsShareWithMeanOne) {
  const double p = 0.2;
  const Tensor mask = dropout_mask({200, 500}, p, seed(4), kFloat).to(at::kDouble);
  const double share = (mask != 0).to(at::kDouble).mean().item<double>();
  const double bound = testing::sigmas() * std::sqrt(p * (1 - p) / mask.numel());
  EXPECT_NEAR(share, 1 - p, bound);
  EXPECT_NEAR(mask.mean().item<double>(), 1.0, bound / (1 - p));
}

TEST(DropoutMask, SameOnAnyNumberOfThreads) {
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  const Tensor one = dropout_mask({100, 700}, 0.5, seed(8), kFloat);
  at::set_num_threads(2);
  const Tensor two = dropout_mask({100, 700}, 0.5, seed(8), kFloat);
  at::set_num_threads(before);
  EXPECT_TRUE(at::equal(one, two));
}

TEST(DropoutMask, ScalarsEmptyTensorsAndOtherTypes) {
  EXPECT_EQ(dropout_mask({}, 0.5, seed(1), kFloat).dim(), 0);
  EXPECT_EQ(dropout_mask({0, 3}, 0.5, seed(1), kFloat).sizes(), at::IntArrayRef({0, 3}));
  EXPECT_EQ(dropout_mask({3, 0}, 0.5, seed(1), kFloat).sizes(), at::IntArrayRef({3, 0}));
  EXPECT_EQ(dropout_mask({2}, 0.5, seed(1), at::kBFloat16).scalar_type(), at::kBFloat16);
}

TEST(DropoutMask, Float64IsScaledInFloat64) {
  const Tensor mask = dropout_mask({64}, 0.3, seed(1), at::TensorOptions().dtype(at::kDouble));
  EXPECT_EQ(mask.max().item<double>(), 1.0 / (1.0 - 0.3));
}

TEST(DropoutMask, ProbabilityZeroIsOnes) {
  EXPECT_TRUE(at::equal(dropout_mask({50}, 0.0, seed(1), kFloat), at::ones({50})));
}

}  // namespace
}  // namespace headloom

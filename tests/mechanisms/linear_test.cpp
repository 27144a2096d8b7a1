// N rows, I inputs, O outputs.
#include "headloom/mechanisms/linear.h"

#include <ATen/autocast_mode.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <vector>

#include "tests/support/closeness.h"

namespace headloom {
namespace {

using at::Tensor;

struct Problem {
  Tensor x, weight, bias;
};

Problem problem(at::IntArrayRef rows, int64_t inputs, int64_t outputs) {
  at::manual_seed(5);
  std::vector<int64_t> sizes(rows.begin(), rows.end());
  sizes.push_back(inputs);
  return {at::randn(sizes).requires_grad_(), at::randn({outputs, inputs}).requires_grad_(),
          at::randn({outputs}).requires_grad_()};
}

std::vector<Tensor> exact_gradients(const Problem& p, const Tensor& grad, Tensor& y) {
  const auto wide = [](const Tensor& t) { return t.detach().to(at::kDouble).requires_grad_(); };
  const Tensor x = wide(p.x), weight = wide(p.weight), bias = wide(p.bias);
  y = at::linear(x, weight, bias);
  return torch::autograd::grad({y}, {x, weight, bias}, {grad.to(at::kDouble)});
}

void expect_rounding(const Tensor& found, const Tensor& exact, double terms) {
  const auto difference =
      testing::differs_by_more_than_rounding(found.detach(), exact.detach(), terms);
  EXPECT_FALSE(difference) << *difference;
}

// Below and above the size from which oneDNN is asked; one row, no row, several dimensions.
TEST(Linear, IsTorchsWithItsGradients) {
  for (const auto& rows : std::vector<std::vector<int64_t>>{{2}, {700}, {3, 5, 41}, {1}, {0}, {}}) {
    for (const auto& [inputs, outputs] : {std::pair{33, 64}, std::pair{64, 3001}}) {
      const Problem p = problem(rows, inputs, outputs);
      const Tensor y = headloom::linear(p.x, p.weight, p.bias);
      const Tensor grad = at::randn_like(y);
      Tensor exact;
      const std::vector<Tensor> expected = exact_gradients(p, grad, exact);
      const std::vector<Tensor> found = torch::autograd::grad({y}, {p.x, p.weight, p.bias}, {grad});
      ASSERT_EQ(y.sizes(), exact.sizes());
      // Terms of size 1 to 16, as many as a sum has.
      expect_rounding(y, exact, 16.0 * inputs);
      for (size_t i = 0; i < found.size(); ++i) {
        ASSERT_EQ(found[i].sizes(), expected[i].sizes()) << i;
        expect_rounding(found[i], expected[i],
                        16.0 * std::max<int64_t>(y.numel() / outputs, outputs));
      }
    }
  }
}

TEST(Linear, TakesAnyStridesAndNoBias) {
  const Problem p = problem({600}, 64, 96);
  const Tensor x = p.x.detach().t().contiguous().t(),
               weight = p.weight.detach().t().contiguous().t();
  const Tensor exact = at::linear(x.to(at::kDouble), weight.to(at::kDouble));
  expect_rounding(headloom::linear(x, weight), exact, 16.0 * 64);
  // Every other row of a larger tensor.
  const Tensor wide = at::randn({1200, 64});
  const Tensor sparse = wide.slice(0, 0, 1200, 2);
  expect_rounding(headloom::linear(sparse, weight),
                  at::linear(sparse.to(at::kDouble), weight.to(at::kDouble)), 16.0 * 64);
}

// Rows that lie apart, rows that lie across, and a number of them that fills no whole vector.
TEST(Linear, WeightGradientsOfAnyStridesAreContiguous) {
  at::manual_seed(6);
  const Tensor apart = at::randn({1206, 64}).slice(0, 0, 1206, 2);
  const Tensor across = at::randn({64, 603}).t();
  for (const Tensor& x : {apart, across}) {
    const Tensor weight = at::randn({96, 64}).requires_grad_(), grad = at::randn({603, 96});
    const Tensor found = torch::autograd::grad({headloom::linear(x, weight)}, {weight}, {grad})[0];
    EXPECT_TRUE(found.is_contiguous());
    expect_rounding(found, at::mm(grad.to(at::kDouble).t(), x.to(at::kDouble)), 16.0 * 603);
  }
}

TEST(Linear, HasSecondDerivatives) {
  const Problem p = problem({512}, 64, 64);
  const auto penalty = [](const Tensor& y, const Tensor& x) {
    return torch::autograd::grad({y.square().sum()}, {x}, {}, true, true)[0].square().sum();
  };
  const Tensor found =
      torch::autograd::grad({penalty(headloom::linear(p.x, p.weight, p.bias), p.x)}, {p.weight})[0];
  const Tensor x = p.x.detach().to(at::kDouble).requires_grad_();
  const Tensor weight = p.weight.detach().to(at::kDouble).requires_grad_();
  const Tensor exact = torch::autograd::grad(
      {penalty(at::linear(x, weight, p.bias.detach().to(at::kDouble)), x)}, {weight})[0];
  expect_rounding(found, exact, testing::magnitude(exact) * 512);
}

TEST(Linear, OnlyWantedGradientsAreMade) {
  const Problem p = problem({512}, 64, 64);
  headloom::linear(p.x.detach(), p.weight, p.bias.detach()).sum().backward();
  EXPECT_TRUE(p.weight.grad().defined());
  EXPECT_FALSE(p.bias.grad().defined());
}

TEST(Linear, AutocastLowersAsItDoesTorchs) {
  const Problem p = problem({512}, 64, 64);
  at::autocast::set_autocast_enabled(at::kCPU, true);
  const Tensor y = headloom::linear(p.x, p.weight, p.bias);
  at::autocast::set_autocast_enabled(at::kCPU, false);
  at::autocast::clear_cache();
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
}

TEST(Linear, RefusesWhatTorchRefuses) {
  EXPECT_THROW(headloom::linear(at::zeros({512, 63}), at::zeros({64, 64})), c10::Error);
}

TEST(LinearModule, HasTorchsNamesAndValues) {
  torch::manual_seed(2);
  const Linear ours(5, 7);
  torch::manual_seed(2);
  const torch::nn::Linear torchs(5, 7);
  const auto a = ours->named_parameters(), b = torchs->named_parameters();
  ASSERT_EQ(a.keys(), b.keys());
  for (const std::string& name : a.keys()) EXPECT_TRUE(at::equal(a[name], b[name])) << name;
}

}  // namespace
}  // namespace headloom

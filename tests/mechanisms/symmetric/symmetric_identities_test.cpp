// What must hold beside agreement with the reference: the algebra of the mechanism.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "headloom/base/check.h"
#include "headloom/base/parallel.h"
#include "headloom/mechanisms/symmetric/symmetric.h"
#include "headloom/mechanisms/symmetric/symmetric_dispatch.h"
#include "tests/support/arguments.h"
#include "tests/support/closeness.h"

namespace headloom {
namespace {

using at::Tensor;
using testing::Difference;
using testing::differs_by_more_than_rounding;
using testing::differs_in_bits;
using testing::normal;

void expect_none(const Difference& difference) {
  EXPECT_FALSE(difference) << *difference;
}

SymmetricCall plain_call() {
  return {{}, {}, {}, false, {}, {}, 0.0, {}, false};
}

TEST(Symmetric, IdentityCoefficientsAreThePlainForm) {
  const Tensor q = normal("q", {2, 3, 50, 8}).to(at::kFloat);
  const Tensor v = normal("v", {2, 3, 50, 5}).to(at::kFloat);
  const Tensor identity = at::eye(8).expand({3, 8, 8});
  SymmetricOptions causal;
  causal.causal = true;
  expect_none(differs_in_bits(symmetric_attention(q, v, identity, causal),
                              symmetric_attention(q, v, std::nullopt, causal)));
  expect_none(differs_in_bits(symmetric_attention(q, v, identity), symmetric_attention(q, v)));
}

TEST(Symmetric, NoCoefficientsAreTheMeanOfTheValues) {
  const Tensor q = normal("q", {1, 2, 70, 4}), v = normal("v", {1, 2, 70, 3});
  Tensor mask = at::zeros({1, 70}, at::kBool);
  mask.narrow(1, 5, 20).fill_(true);
  SymmetricOptions options;
  options.key_padding_mask = mask;
  const Tensor found = symmetric_attention(q, v, at::zeros({2, 4, 4}, at::kDouble), options);
  const Tensor kept = (~mask).to(at::kDouble).view({1, 1, 70, 1});
  const Tensor mean = (v * kept).sum(2, true) / kept.sum(2, true);
  expect_none(differs_by_more_than_rounding(found, mean.expand_as(found)));
}

TEST(Symmetric, GaugeLeavesTheOutput) {
  const Tensor q = normal("q", {2, 2, 33, 6}), v = normal("v", {2, 2, 33, 6});
  const Tensor a = normal("a", {2, 6, 6});
  const Tensor r = normal("r", {6, 6}) + 4 * at::eye(6, at::kDouble);
  const Tensor inverse = at::linalg_inv(r);
  const Tensor other = at::matmul(inverse, at::matmul(a, inverse.t()));
  expect_none(differs_by_more_than_rounding(symmetric_attention(at::matmul(q, r), v, other),
                                            symmetric_attention(q, v, a), 1e3));
}

TEST(Symmetric, PermutationOfTokensPermutesTheOutput) {
  const Tensor q = normal("q", {1, 2, 130, 6}), v = normal("v", {1, 2, 130, 6});
  const Tensor order = at::arange(129, -1, -1, at::kLong).roll(17);
  expect_none(differs_by_more_than_rounding(
      symmetric_attention(q.index_select(2, order), v.index_select(2, order)),
      symmetric_attention(q, v).index_select(2, order)));
}

// The half-tile form against the reference on both sides of the switch, with gradients.
TEST(Symmetric, HalfTilesAgreeAtTheSwitch) {
  const int64_t heads = 4 * thread_count();  // whole rounds of work
  for (const int64_t length : {63, 64, 65, 127, 128, 129, 257, 400}) {
    for (const bool constrained : {false, true}) {
      SCOPED_TRACE(cat("T = ", length, constrained ? ", constrained" : ""));
      const Tensor q = normal("q", {1, heads, length, 5}).requires_grad_();
      const Tensor v = normal("v", {1, heads, length, 3}).requires_grad_();
      const Tensor a = normal("a", {heads, 5, 5}).requires_grad_();
      SymmetricCall call = plain_call();
      call.symmetrize = constrained;
      EXPECT_EQ(uses_half_tiles(q, v, constrained, call), length > 64);
      SymmetricOptions options;
      options.symmetrize = constrained;
      const std::optional<Tensor> pairwise = constrained ? std::optional(a) : std::nullopt;
      const Tensor found = symmetric_attention(q, v, pairwise, options);
      const Tensor exact = symmetric_composite({q, v, constrained ? a : Tensor(), {}, {}}, call);
      expect_none(differs_by_more_than_rounding(found, exact));
      const Tensor grad = normal("grad", found.sizes());
      std::vector<Tensor> leaves{q, v};
      if (constrained) leaves.push_back(a);
      const auto found_grads = torch::autograd::grad({found}, leaves, {grad});
      const auto exact_grads = torch::autograd::grad({exact}, leaves, {grad});
      for (size_t i = 0; i < leaves.size(); ++i) {
        expect_none(differs_by_more_than_rounding(found_grads[i], exact_grads[i], 10.0));
      }
    }
  }
}

TEST(Symmetric, HalfTilesAreForSymmetricScoresAlone) {
  const Tensor q = normal("q", {1, 4 * thread_count(), 128, 4}), v = q;
  const auto uses = [&](bool pairwise, const std::function<void(SymmetricCall&)>& change) {
    SymmetricCall call = plain_call();
    change(call);
    return uses_half_tiles(q, v, pairwise, call);
  };
  EXPECT_TRUE(uses(false, [](SymmetricCall&) {}));
  EXPECT_TRUE(uses(true, [](SymmetricCall& call) { call.symmetrize = true; }));
  EXPECT_FALSE(uses(true, [](SymmetricCall&) {}));
  EXPECT_FALSE(uses(false, [](SymmetricCall& call) { call.causal = true; }));
  EXPECT_FALSE(uses(false, [&](SymmetricCall& call) { call.k = q; }));
  EXPECT_FALSE(uses(false, [](SymmetricCall& call) { call.bias = at::zeros({128, 128}); }));
}

// What runs on devices without the tile engine.
TEST(Symmetric, FoldedIntoTorchsAttention) {
  const Tensor q = normal("q", {2, 1, 9, 4}), v = normal("v", {2, 2, 9, 3});
  const Tensor a = normal("a", {2, 4, 4}), bias = normal("bias", {2, 9, 9});
  Tensor mask = at::zeros({2, 9}, at::kBool);
  mask[0][2] = true;
  mask[1].fill_(true);
  for (const bool causal : {false, true}) {
    for (const bool masked : {false, true}) {
      SymmetricCall call = plain_call();
      call.causal = causal;
      if (masked) call.key_padding_mask = mask;
      const SymmetricInputs x{q, v, a, {}, masked ? bias : Tensor()};
      expect_none(
          differs_by_more_than_rounding(symmetric_folded(x, call), symmetric_composite(x, call)));
    }
  }
  SymmetricCall packed = plain_call();
  packed.cu_seqlens = at::tensor({0, 4, 4, 9}, at::kLong);
  const SymmetricInputs x{q.narrow(0, 0, 1), v.narrow(0, 0, 1), a, {}, {}};
  expect_none(
      differs_by_more_than_rounding(symmetric_folded(x, packed), symmetric_composite(x, packed)));
}

// Its gradients are finite where a query sees nothing.
TEST(Symmetric, FoldedGradientsOfBlindQueriesAreZero) {
  const Tensor q = normal("q", {1, 1, 5, 4}).requires_grad_();
  const Tensor v = normal("v", {1, 1, 5, 4}).requires_grad_();
  SymmetricCall call = plain_call();
  call.key_padding_mask = at::ones({1, 5}, at::kBool);
  const Tensor out = symmetric_folded({q, v, {}, {}, {}}, call);
  for (const Tensor& grad : torch::autograd::grad({out.sum()}, {q, v})) {
    expect_none(testing::is_not_zero(grad));
  }
}

// Coefficients of N(0, 1) make logits sqrt(D) times as wide as independent queries and keys do.
TEST(Symmetric, WidthOfLogitsAtTheStart) {
  at::manual_seed(5);
  const int64_t D = 64;
  const Tensor q = at::randn({400, D}), k = at::randn({400, D});
  const double pairwise = at::matmul(at::matmul(q, at::randn({D, D})), k.t()).std().item<double>();
  const double ordinary = at::matmul(q, k.t()).std().item<double>();
  EXPECT_NEAR(pairwise / ordinary / std::sqrt(static_cast<double>(D)), 1.0, 0.05);
}

}  // namespace
}  // namespace headloom

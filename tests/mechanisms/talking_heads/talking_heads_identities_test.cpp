// What must hold whatever the numbers are.
#include <torch/csrc/autograd/autograd.h>

#include "tests/mechanisms/talking_heads/talking_heads_cases.h"
#include "tests/support/memory.h"

namespace headloom::testing {
namespace {

using at::Tensor;

struct Inputs {
  Tensor q, k, v, logits, weights;
};

// float64 [2, heads, 9 or 11, 4]
Inputs inputs(int64_t K, int64_t H, int64_t V) {
  return {normal("q", {2, K, 9, 4}), normal("k", {2, K, 11, 4}), normal("v", {2, V, 11, 4}),
          normal("logits", {K, H}), normal("weights", {H, V})};
}

TalkingHeadsOptions mixing(const Tensor& logits, const Tensor& weights, bool causal = true) {
  TalkingHeadsOptions options;
  options.logits_proj = logits;
  options.weights_proj = weights;
  options.causal = causal;
  return options;
}

Tensor attend(const Inputs& x, const TalkingHeadsOptions& options) {
  return talking_heads_attention(x.q, x.k, x.v, options);
}
Tensor attend(const Inputs& x) {
  return attend(x, mixing(x.logits, x.weights));
}

void expect_same(const Tensor& found, const Tensor& expected) {
  const auto difference =
      differs_by_more_than_rounding(found, expected, std::max(1.0, magnitude(expected)));
  EXPECT_FALSE(difference) << *difference;
}

TEST(TalkingHeadsIdentities, IdentityMixesArePlainAttention) {
  const Inputs x = inputs(3, 3, 3);
  const Tensor eye = at::eye(3, at::kDouble);
  Tensor logits = at::matmul(x.q, x.k.transpose(-2, -1)) / 2.0;
  logits = logits.masked_fill(at::ones({9, 11}, at::kBool).triu(3), -INFINITY);
  const Tensor plain = at::matmul(logits.softmax(-1), x.v);
  expect_same(attend(x, mixing(eye, eye)), plain);
  TalkingHeadsOptions neither;
  neither.causal = true;
  expect_same(attend(x, neither), plain);
}

TEST(TalkingHeadsIdentities, NamesOfSoftmaxHeadsDoNotMatter) {
  const Inputs x = inputs(2, 3, 4);
  const Tensor order = at::tensor({2, 0, 1});
  expect_same(attend(x, mixing(x.logits.index_select(1, order), x.weights.index_select(0, order))),
              attend(x));
}

TEST(TalkingHeadsIdentities, ScalesOfHeadsCancel) {
  const Inputs x = inputs(2, 3, 4);
  Inputs scaled = x;
  const Tensor c = at::tensor({2.0, -0.5}), d = at::tensor({1.0, 3.0, -2.0, 0.25});
  scaled.q = x.q * c.to(at::kDouble).view({1, 2, 1, 1});
  scaled.logits = x.logits / c.to(at::kDouble).view({2, 1});
  scaled.v = x.v * d.to(at::kDouble).view({1, 4, 1, 1});
  scaled.weights = x.weights / d.to(at::kDouble);
  expect_same(attend(scaled), attend(x));
}

TEST(TalkingHeadsIdentities, OfOnesIsTheSumOfTheMix) {
  Inputs x = inputs(2, 3, 4);
  x.v = at::ones_like(x.v);
  expect_same(attend(x), x.weights.sum(0).view({1, 4, 1, 1}).expand({2, 4, 9, 4}));
}

TEST(TalkingHeadsIdentities, LinearInTheSecondMix) {
  const Inputs x = inputs(2, 3, 4);
  const Tensor other = normal("other", {3, 4});
  expect_same(attend(x, mixing(x.logits, x.weights + other)),
              attend(x) + attend(x, mixing(x.logits, other)));
}

TEST(TalkingHeadsIdentities, ConstantLogitBiasChangesNothingAndGetsNoGradient) {
  const Inputs x = inputs(2, 3, 4);
  TalkingHeadsOptions options = mixing(x.logits, x.weights);
  options.bias = normal("bias", {2, 3, 9, 1}).requires_grad_(true);
  const Tensor out = attend(x, options);
  expect_same(out, attend(x));
  expect_same(torch::autograd::grad({out}, {*options.bias}, {normal("g", out.sizes())})[0],
              at::zeros({2, 3, 9, 1}, at::kDouble));
}

// A mask before the mix would send hidden keys to weight 1.
TEST(TalkingHeadsIdentities, MaskComesAfterANegativeMix) {
  Inputs x = inputs(2, 2, 2);
  x.v = at::eye(11, at::kDouble).expand({2, 2, 11, 11}).contiguous();
  const Tensor eye = at::eye(2, at::kDouble);
  const Tensor weights = attend(x, mixing(-eye, eye));  // [2, 2, 9, 11]
  EXPECT_FALSE(is_not_zero(weights.triu(3)));
}

// Oracle of the logits: one wide head of keys and a query a softmax head.
TEST(TalkingHeadsIdentities, LogitMixIsAttentionToConcatenatedKeys) {
  const Inputs x = inputs(2, 3, 3);
  const Tensor keys = x.k.transpose(1, 2).flatten(2).unsqueeze(1);  // [2, 1, 11, 8]
  const Tensor queries = at::einsum("bkid,kh->bhikd", {x.q, x.logits}).flatten(3);
  const Tensor logits = at::matmul(queries, keys.transpose(-2, -1)) / 2.0;
  TalkingHeadsOptions options;
  options.logits_proj = x.logits;
  expect_same(attend(x, options), at::matmul(logits.softmax(-1), x.v));
}

TEST(TalkingHeadsIdentities, BlockDiagonalMixesAreGroups) {
  const Inputs x = inputs(4, 6, 2);
  const Tensor logits = normal("grouped logits", {2, 2, 3});
  const Tensor weights = normal("grouped weights", {2, 3, 1});
  expect_same(attend(x, mixing(logits, weights)),
              attend(x, mixing(at::block_diag({logits[0], logits[1]}),
                               at::block_diag({weights[0], weights[1]}))));
}

TEST(TalkingHeadsIdentities, ConstantDynamicProjectionIsStatic) {
  const Inputs x = inputs(2, 3, 4);
  const Tensor more = normal("more", {2, 3}), other = normal("other", {3, 4});
  TalkingHeadsOptions options = mixing(x.logits, x.weights);
  options.x2l = more.expand({2, 9, 2, 3});
  options.m2l = (-0.5 * more).expand({2, 11, 2, 3});
  options.x2w = other.expand({2, 9, 3, 4});
  options.m2w = other.expand({2, 11, 3, 4});
  expect_same(attend(x, options), attend(x, mixing(x.logits + 0.5 * more, x.weights + 2 * other)));
}

TEST(TalkingHeadsIdentities, DropoutOfKeysScalesValues) {
  Inputs x = inputs(2, 3, 4);
  TalkingHeadsOptions options = mixing(x.logits, x.weights);
  options.dropout_p = 0.4;
  options.dropout_site = "per_key";
  options.seed = at::scalar_tensor(9, at::kLong);
  const Tensor dropped = attend(x, options);
  Inputs probe = x;
  probe.v = at::eye(11, at::kDouble).expand({2, 4, 11, 11}).contiguous();
  const TalkingHeadsOptions without = mixing(x.logits, x.weights, false);
  TalkingHeadsOptions with = without;
  with.dropout_p = 0.4;
  with.dropout_site = "per_key";
  with.seed = options.seed;
  // One factor a key for all queries: read off the first one.
  const Tensor factor = (attend(probe, with) / attend(probe, without)).select(2, 0);  // [2, 4, 11]
  x.v = x.v * factor.unsqueeze(-1);
  expect_same(dropped, attend(x));
}

// sum over b and i of delta = sum over v of P_w dP_w, for each softmax head.
TEST(TalkingHeadsIdentities, GradientOfTheSecondMixAgreesWithTheOutput) {
  Inputs x = inputs(2, 3, 4);
  x.weights.requires_grad_(true);
  const Tensor out = attend(x), grad = normal("grad", out.sizes());
  const Tensor found = torch::autograd::grad({out}, {x.weights}, {grad})[0];
  expect_same((found * x.weights).sum().detach(), (grad * out).sum().detach());
}

TEST(TalkingHeadsIdentities, LaterTokensLeaveEarlierRowsBitForBit) {
  const Inputs x = inputs(2, 3, 4);
  Inputs changed = x;
  changed.k = x.k.clone();
  changed.k.narrow(2, 7, 4).add_(1.0);
  EXPECT_FALSE(differs_in_bits(attend(changed).narrow(2, 0, 5), attend(x).narrow(2, 0, 5)));
}

// Twelve heads over 16,384 tokens: the weights alone would take 12.9 GB for each step that keeps
// them.
TEST(TalkingHeadsMemorySlow, ForwardAndBackwardUnderOneGibibyte) {
  const auto tokens = [](const char* name) {
    return normal(name, {1, 12, 16384, 64}).to(at::kFloat).requires_grad_(true);
  };
  const Tensor q = tokens("q"), k = tokens("k"), v = tokens("v");
  TalkingHeadsOptions options;
  options.logits_proj = at::eye(12).requires_grad_(true);
  options.weights_proj = at::eye(12).requires_grad_(true);
  const Tensor grad = normal("grad", q.sizes()).to(at::kFloat);
  std::vector<Tensor> found;
  const int64_t extra = peak_extra_bytes([&] {
    const Tensor out = talking_heads_attention(q, k, v, options);
    found = torch::autograd::grad({out}, {q, k, v, *options.logits_proj, *options.weights_proj},
                                  {grad});
  });
  EXPECT_LT(extra, int64_t{1} << 30);
  for (const Tensor& gradient : found) EXPECT_FALSE(is_not_finite(gradient));
}

}  // namespace
}  // namespace headloom::testing

// Values worked out independently in float64 from the definition, with tensors laid out token by
// token and filled with sines, printed with nine decimals.
#include <torch/csrc/autograd/autograd.h>

#include "tests/mechanisms/talking_heads/talking_heads_cases.h"

namespace headloom::testing {
namespace {

using at::Tensor;

Tensor wave(double step, double phase, std::vector<int64_t> sizes) {
  const int64_t count = c10::multiply_integers(sizes);
  return (at::arange(count, at::kDouble) * step + phase).sin().view(sizes);
}

// [n, heads, d] -> [1, heads, n, d] and back.
Tensor by_head(const Tensor& x) {
  return x.transpose(0, 1).unsqueeze(0);
}
Tensor by_token(const Tensor& x) {
  return x[0].transpose(0, 1);
}

::testing::AssertionResult golden(const Tensor& found, const std::vector<double>& expected) {
  const Tensor values = at::tensor(expected, at::kDouble);
  const Tensor flat = found.contiguous().flatten();
  // Nine decimals were printed.
  const double error = (flat - values).abs().max().item<double>();
  if (flat.numel() == values.numel() && error <= 0.5000001e-9) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << found << "\nis off by " << error;
}

struct Values {
  bool causal;
  std::vector<double> o0, lse1, grad_logits, grad_weights, grad_q2, grad_k1, grad_v3;
  double sum;
  std::vector<double> sizes;  // sums of |grad_q|, |grad_k|, |grad_v|
};

const std::vector<Values> kValues{
    {false,
     {.110134259, .399572007, .107464849, .001959775},
     {1.869754026, 1.637628852, 1.272678605},
     {-.603198682, .388300854, -.260549603, -.403475563, .431194807, -.362003071},
     {.259503633, .150324674, .166027587, -.332119175, -.178200086, -.267942811},
     {-.063434730, .123664166, -.297712470, -.151150614},
     {.137784785, -.070544914, .102688757, .233420093},
     {-.057510753, .014024929, .011238896, -.012713750},
     .794135393,
     {1.548933695, 1.513978537, .898979061}},
    {true,
     {-.173573716, .226065072, .344195295, .347710867},
     {1.324061098, 1.130144039, 1.109438341},
     {-.249762195, .068440686, .049049120, -.504107226, .515119709, -.313529037},
     {-.037416785, 1.009264157, .282416419, .418564557, -.308998615, .265365779},
     {-.063434730, .123664166, -.297712470, -.151150614},
     {.152279999, -.010429111, .109081478, .233209138},
     {-.228904016, -.213268207, -.075426864, -.021765678},
     .972059641,
     {2.036670980, 1.525942632, 2.312658862}}};

using Path = Tensor (*)(const Tensor&, const Tensor&, const Tensor&, const TalkingHeadsOptions&);

Tensor through_reference(const Tensor& q, const Tensor& k, const Tensor& v,
                         const TalkingHeadsOptions& options) {
  return talking_heads_composite(talking_heads_inputs(q, k, v, options), options);
}

class TalkingHeadsGolden : public ::testing::TestWithParam<Path> {};

TEST_P(TalkingHeadsGolden, Values) {
  for (const Values& expected : kValues) {
    SCOPED_TRACE(expected.causal ? "causal" : "full");
    std::vector<Tensor> x{wave(.7, .1, {3, 2, 2}), wave(.9, .2, {4, 2, 2}),
                          wave(1.1, .3, {4, 2, 2}), wave(1.3, .4, {2, 3}), wave(1.7, .5, {3, 2})};
    for (Tensor& tensor : x) tensor.requires_grad_(true);
    TalkingHeadsOptions options;
    options.logits_proj = x[3];
    options.weights_proj = x[4];
    options.causal = expected.causal;
    options.scale = 1.0;
    const Tensor out = by_token(GetParam()(by_head(x[0]), by_head(x[1]), by_head(x[2]), options));
    EXPECT_TRUE(golden(out[0], expected.o0));
    EXPECT_TRUE(golden(out[2], {.231697116, .312576972, -.031913853, -.066407699}));
    EXPECT_TRUE(golden(out.sum(), {expected.sum}));
    const auto grads = torch::autograd::grad({out}, x, {wave(.5, .6, {3, 2, 2})});
    EXPECT_TRUE(golden(grads[3], expected.grad_logits));
    EXPECT_TRUE(golden(grads[4], expected.grad_weights));
    EXPECT_TRUE(golden(grads[0][2], expected.grad_q2));
    EXPECT_TRUE(golden(grads[1][1], expected.grad_k1));
    EXPECT_TRUE(golden(grads[2][3], expected.grad_v3));
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_TRUE(golden(grads[i].abs().sum(), {expected.sizes[i]}));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Paths, TalkingHeadsGolden,
                         ::testing::Values(&talking_heads_attention, &through_reference),
                         [](const auto& info) { return info.index == 0 ? "fused" : "reference"; });

TEST(TalkingHeadsGolden, LogSumExp) {
  for (const Values& expected : kValues) {
    TalkingHeadsCall call;
    call.logits_proj = wave(1.3, .4, {2, 3});
    call.causal = expected.causal;
    call.scale = 1.0;
    const Tensor q = by_head(wave(.7, .1, {3, 2, 2})), k = by_head(wave(.9, .2, {4, 2, 2}));
    const Tensor v = at::zeros({1, 3, 4, 1}, at::kDouble);
    for (const auto& [out, log2_sums] :
         {fused_talking_heads(q, k, v, call, true), tiled_talking_heads(q, k, v, call)}) {
      EXPECT_TRUE(golden(log2_sums.select(2, 1) * std::log(2.0), expected.lse1));
    }
  }
}

}  // namespace
}  // namespace headloom::testing

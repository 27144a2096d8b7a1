// Values worked out independently in float64: the hand test of the paper's authors and a smooth
// signal of 32 tokens, forward, backward and masked.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "headloom/mechanisms/h_transformer/h_transformer.h"
#include "headloom/mechanisms/h_transformer/h_transformer_dispatch.h"
#include "headloom/mechanisms/h_transformer/h_transformer_reference.h"
#include "tests/support/closeness.h"

namespace headloom::testing {
namespace {

using at::Tensor;
using Path = Tensor (*)(const Tensor&, const Tensor&, const Tensor&, const HAttentionCall&);

Tensor by_operator(const Tensor& q, const Tensor& k, const Tensor& v, const HAttentionCall& call) {
  static const Operator<HAttentionOp, HAttentionPlain> op("h_attention");
  return op(q, k, v, call);
}
Tensor by_level(const Tensor& q, const Tensor& k, const Tensor& v, const HAttentionCall& call) {
  return std::get<0>(h_attention_by_level(q, k, v, call));
}

class HAttentionGolden : public ::testing::TestWithParam<Path> {};

// Printed with eight decimals: half a unit of the last one is all that may differ.
void expect(const Tensor& found, const std::vector<double>& values) {
  const Tensor golden = at::tensor(values, at::kDouble);
  EXPECT_LE((found.detach().flatten() - golden).abs().max().item<double>(), 0.51e-8) << found;
}

TEST_P(HAttentionGolden, HandTest) {
  const Tensor x = at::tensor({0.08482573, 1.9097669, 0.29561728, 1.1209449, 0.33432317, -0.8260815,
                               0.6481298, 1.0434877, -0.7824855, -0.453946, 0.6298023, 0.8152592,
                               -0.3278767, -1.1234418, -1.6607414, 0.2729053},
                              at::kDouble)
                       .view({1, 1, 8, 2});
  const Tensor out = GetParam()(x, x, x, {.block_size = 2})[0][0];
  expect(out[0], {0.15684202, 1.33259006});
  expect(out[5], {0.22851014, 0.72701703});
}

TEST(HAttentionGoldenSums, HandTest) {
  const Tensor x = at::tensor({0.08482573, 1.9097669, 0.29561728, 1.1209449, 0.33432317, -0.8260815,
                               0.6481298, 1.0434877, -0.7824855, -0.453946, 0.6298023, 0.8152592,
                               -0.3278767, -1.1234418, -1.6607414, 0.2729053},
                              at::kDouble)
                       .view({1, 1, 8, 2});
  const Tensor sums = std::get<1>(call_h_attention_forward(x, x, x, {.block_size = 2}));
  expect(sums[0][0][0] * std::log(2.0), {3.25718784});
  expect(sums[0][0][5] * std::log(2.0), {2.22254882});
}

struct Wave {
  Tensor q = make(0.7, 1.3, &at::sin), k = make(0.3, -0.9, &at::cos), v, grad;

  Wave() {
    const Tensor i = at::arange(32, at::kDouble).unsqueeze(1), c = at::arange(4, at::kDouble);
    v = (0.11 * i * (c + 1)).sin().view({1, 1, 32, 4});
    grad = (0.2 * i + c).cos().view({1, 1, 32, 4});
  }
  static Tensor make(double by_token, double by_channel, Tensor (*wave)(const Tensor&)) {
    const Tensor i = at::arange(32, at::kDouble).unsqueeze(1), c = at::arange(4, at::kDouble);
    return wave(by_token * i + by_channel * c).view({1, 1, 32, 4});
  }
};

struct WaveValues {
  bool causal;
  std::vector<double> out_13, out_31;
  double sum;
  std::vector<double> grad_q_13, grad_k_2, magnitudes;
};

const std::vector<WaveValues>& wave_values() {
  static const std::vector<WaveValues> values{{false,
                                               {0.61731387, -0.03260316, -0.0775248, 0.07254961},
                                               {0.56843617, -0.07882239, 0.04046894, 0.25655905},
                                               24.47637971,
                                               {0.18330859, 0.09016593, -0.0712125, -0.17869873},
                                               {-0.086326, -0.06854664, 0.04965371, 0.09511126},
                                               {14.92397660, 4.07242650, 5.80829990}},
                                              {true,
                                               {0.59341808, 0.5355457, 0.05717289, -0.12951254},
                                               {0.51990432, -0.09647427, 0.16918552, 0.35947345},
                                               41.56445499,
                                               {0.18072175, 0.11532769, -0.03734406, -0.16175458},
                                               {-0.06802811, -0.02268365, 0.05589241, 0.05258596},
                                               {16.72624190, 6.08103489, 38.04355585}}};
  return values;
}

TEST_P(HAttentionGolden, Wave) {
  for (const WaveValues& expected : wave_values()) {
    SCOPED_TRACE(expected.causal ? "causal" : "bidirectional");
    Wave wave;
    for (Tensor* x : {&wave.q, &wave.k, &wave.v}) x->requires_grad_();
    const Tensor out =
        GetParam()(wave.q, wave.k, wave.v, {.block_size = 4, .causal = expected.causal});
    expect(out[0][0][13], expected.out_13);
    expect(out[0][0][31], expected.out_31);
    expect(out.sum(), {expected.sum});
    const auto grads = torch::autograd::grad({out}, {wave.q, wave.k, wave.v}, {wave.grad});
    expect(grads[0][0][0][13], expected.grad_q_13);
    expect(grads[1][0][0][2], expected.grad_k_2);
    for (int i = 0; i < 3; ++i) expect(grads[i].abs().sum(), {expected.magnitudes[i]});
  }
}

TEST_P(HAttentionGolden, Masked) {
  const Wave wave;
  Tensor mask = at::zeros({1, 32}, at::kBool);
  mask.narrow(1, 27, 5).fill_(true);
  const auto run = [&] {
    return GetParam()(wave.q, wave.k, wave.v, {.block_size = 4, .key_padding_mask = mask});
  };
  const Tensor suffix = run();
  expect(suffix[0][0][0], {0.59554134, -0.1282403, 0.36602714, 0.23211292});
  expect(suffix.sum(), {24.07430903});
  mask.zero_();
  for (const int64_t token : {3, 8, 9, 20}) mask[0][token].fill_(true);
  const Tensor holes = run();
  expect(holes[0][0][13], {0.60473449, -0.05860048, -0.13802624, 0.06543397});
  expect(holes.sum(), {17.70312197});
}

std::string path_name(const ::testing::TestParamInfo<Path>& info) {
  const std::vector<std::string> names{"Operator", "Reference", "ByLevel"};
  return names.at(info.index);
}

INSTANTIATE_TEST_SUITE_P(Paths, HAttentionGolden,
                         ::testing::Values(&by_operator, &h_attention_reference, &by_level),
                         path_name);

}  // namespace
}  // namespace headloom::testing

// Values worked out independently in float64 from the definition, and printed with nine decimals.
#include "tests/mechanisms/light_conv/light_conv_cases.h"

namespace headloom::conv_testing {
namespace {

struct Operands {
  Tensor x = wave(.7, .1, {1, 5, 4});
  Tensor projection = wave(.9, .2, {6, 4});  // [H K, C]
  Tensor weight = wave(1.3, .4, {2, 3});
  Tensor grad = wave(.5, .6, {1, 5, 4});
};

class ConvGolden : public ::testing::TestWithParam<Path> {};

struct LightValues {
  int64_t padding;
  std::vector<double> first, last;
  double sum;
  std::vector<double> grad_weight, grad_x2;
};

TEST_P(ConvGolden, Light) {
  const Operands in;
  const std::vector<LightValues> cases{
      {2,
       {.021596044, .155179038, .655116675, .530989612},
       {.045272623, .029115189, .105272872, .452598401},
       1.650720447,
       {-.438749286, .314222473, .124526813, -.517954864, .354626171, .163328692},
       {.146445767, .257352227, -.250658965, -.021729345}},
      {1,
       {.102309255, .267535627, -.406291482, -.471398749},
       {-.261694068, -.209910244, -.041311078, .009083145},
       -.215993165,
       {.189287590, .322965229, -.512252819, .389543169, .212039856, -.601583025},
       {-.305294553, -.257693400, -.271687593, -.430199525}}};
  for (const LightValues& expected : cases) {
    SCOPED_TRACE(expected.padding);
    const ConvCall call = light(expected.padding);
    const Tensor y = GetParam()(in.x, in.weight, call);
    EXPECT_TRUE(golden(y[0][0], expected.first));
    EXPECT_TRUE(golden(y[0][4], expected.last));
    EXPECT_TRUE(golden(y.sum(), {expected.sum}));
    const auto found = gradients(GetParam(), in.x, in.weight, call, in.grad);
    EXPECT_TRUE(golden(found[1], expected.grad_weight));
    EXPECT_TRUE(golden(found[0][0][2], expected.grad_x2));
  }
}

// As in a layer: the kernels are predicted from x, so x has two paths to the output.
Tensor predicted(Path path, const Tensor& x, const Tensor& projection, const ConvCall& call) {
  return path(x, at::matmul(x, projection.t()).view({1, 5, 2, 3}), call);
}

struct DynamicValues {
  int64_t padding;
  std::vector<double> first, last;
  double sum;
  std::vector<double> grad_projection0, grad_x2;
};

TEST_P(ConvGolden, Dynamic) {
  const Operands in;
  const std::vector<DynamicValues> cases{{2,
                                          {.020477442, .147141293, .756853128, .613449732},
                                          {.503312625, .174333643, .524416587, .888255039},
                                          10.036676923,
                                          {.184364864, -.048036967, -.257846262, -.346386431},
                                          {.034144045, -.212141206, .155026166, .282364517}},
                                         {1,
                                          {.052859906, -.063563555, -.655637993, -.695566451},
                                          {-.624429876, -.388730330, -.305365788, -.608618131},
                                          -9.081175265,
                                          {-.168074068, -.082075389, .042524628, .147124647},
                                          {-.228272667, -.340957676, -.072516210, .131064216}}};
  for (const DynamicValues& expected : cases) {
    SCOPED_TRACE(expected.padding);
    const ConvCall call = dynamic(expected.padding);
    const Tensor y = predicted(GetParam(), in.x, in.projection, call);
    EXPECT_TRUE(golden(y[0][0], expected.first));
    EXPECT_TRUE(golden(y[0][4], expected.last));
    EXPECT_TRUE(golden(y.sum(), {expected.sum}));
    const auto found = gradients(
        [&](const std::vector<Tensor>& leaf) {
          return predicted(GetParam(), leaf[0], leaf[1], call);
        },
        {in.x, in.projection}, in.grad);
    EXPECT_TRUE(golden(found[1][0], expected.grad_projection0));
    EXPECT_TRUE(golden(found[0][0][2], expected.grad_x2));
  }
}

TEST_P(ConvGolden, DynamicRenormalised) {
  const Operands in;
  ConvCall call = dynamic(2);
  call.renorm_padding = true;
  Tensor y = predicted(GetParam(), in.x, in.projection, call);
  EXPECT_TRUE(golden(y[0][0], {.099833417, .717356091, .997494987, .808496404}));
  EXPECT_TRUE(close(y[0][0], in.x[0][0]));
  EXPECT_TRUE(golden(y.sum(), {11.255676490}));
  call.padding = 1;
  y = predicted(GetParam(), in.x, in.projection, call);
  EXPECT_TRUE(golden(y[0][0], {.217495192, -.261535985, -.821231593, -.871244728}));
  EXPECT_TRUE(golden(y.sum(), {-9.914657889}));
}

INSTANTIATE_TEST_SUITE_P(Paths, ConvGolden, ::testing::Values(&run, &light_conv_reference),
                         [](const auto& info) { return info.index ? "Reference" : "Operator"; });

}  // namespace
}  // namespace headloom::conv_testing

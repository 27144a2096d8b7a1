// First and second derivatives by central differences in float64.
#include "tests/mechanisms/light_conv/light_conv_cases.h"

namespace headloom::conv_testing {
namespace {

using Scalar = std::function<Tensor(const std::vector<Tensor>&)>;

constexpr double kStep = 1e-5;

// The derivative of `function` along random directions of each input, against `found`.
void expect_derivatives(const Scalar& function, const std::vector<Tensor>& inputs,
                        const std::vector<Tensor>& found) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    for (const int64_t seed : {100, 101, 102}) {
      const Tensor direction = normal(inputs[i].sizes(), seed);
      const auto at_step = [&](double step) {
        std::vector<Tensor> moved = inputs;
        moved[i] = inputs[i] + step * direction;
        return function(moved);
      };
      const Tensor numeric = (at_step(kStep) - at_step(-kStep)) / (2 * kStep);
      EXPECT_TRUE(close((found[i] * direction).sum(), numeric, 1e-7, 1.0)) << "input " << i;
    }
  }
}

// Of sum <grad, y>, and of a random combination of its gradients.
void expect_two_derivatives(const std::vector<Tensor>& inputs, const ConvCall& given) {
  const Tensor grad = normal(inputs[0].sizes(), 50);
  const auto value = [&](const std::vector<Tensor>& in) {
    ConvCall call = given;
    call.conv_bias = in[2];
    // The square makes the second derivative by every input differ from zero.
    return (run(in[0], in[1], call).square() * grad).sum();
  };
  const auto first = [&](const std::vector<Tensor>& in, bool create_graph) {
    const at::AutoGradMode on(true);
    std::vector<Tensor> leaves;
    for (const Tensor& x : in) {
      leaves.push_back(x.requires_grad() ? x : x.detach().requires_grad_(true));
    }
    return torch::autograd::grad({value(leaves)}, leaves, {}, create_graph, create_graph);
  };
  expect_derivatives(value, inputs, first(inputs, false));
  const auto combination = [&](const std::vector<Tensor>& in, bool create_graph) {
    const at::AutoGradMode on(create_graph);
    Tensor sum = at::zeros({}, at::kDouble);
    const auto parts = first(in, create_graph);
    for (size_t i = 0; i < parts.size(); ++i) {
      sum = sum + (parts[i] * normal(parts[i].sizes(), 60 + static_cast<int64_t>(i))).sum();
    }
    return sum;
  };
  const at::AutoGradMode on(true);
  std::vector<Tensor> leaves;
  for (const Tensor& x : inputs) leaves.push_back(x.detach().requires_grad_(true));
  const auto second = torch::autograd::grad({combination(leaves, true)}, leaves);
  expect_derivatives([&](const std::vector<Tensor>& in) { return combination(in, false); }, inputs,
                     second);
}

void sweep(const ConvCall& base, const std::vector<int64_t>& weight_shape, bool packed) {
  const Tensor x = normal({packed ? 1 : 2, 7, 6}, 51), weight = normal(weight_shape, 52);
  const Tensor bias = normal({6}, 53);
  for (const bool softmax : {true, false}) {
    for (const bool hidden : {false, true}) {
      for (const double dropout : {0.0, 0.4}) {
        ConvCall call = base;
        call.weight_softmax = softmax || base.renorm_padding;
        if (hidden) {
          call.key_padding_mask = packed ? mask({"x..x..."}) : mask({"x..x...", ".....xx"});
        }
        if (packed) call.cu_seqlens = at::tensor({0, 2, 2, 7}, at::kLong);
        call.weight_dropout = dropout;
        call.seed = at::scalar_tensor(5, at::kLong);
        SCOPED_TRACE(::testing::Message() << "softmax " << softmax << ", padding mask " << hidden
                                          << ", DropConnect " << dropout);
        expect_two_derivatives({x, weight, bias}, call);
      }
    }
  }
}

TEST(ConvGradients, Light) {
  sweep(light(1), {3, 4}, false);
}

TEST(ConvGradients, LightPackedDroppingPerPosition) {
  ConvCall call = light(3);
  call.per_position = true;
  sweep(call, {2, 4}, true);
}

TEST(ConvGradients, Dynamic) {
  sweep(dynamic(2), {2, 7, 3, 3}, false);
}

TEST(ConvGradients, DynamicRenormalised) {
  ConvCall call = dynamic(3);
  call.renorm_padding = true;
  sweep(call, {2, 7, 3, 3}, false);
}

TEST(ConvGradients, DynamicPackedRenormalised) {
  ConvCall call = dynamic(2);
  call.renorm_padding = true;
  sweep(call, {1, 7, 2, 4}, true);
}

TEST(ConvGradients, ComputedOnlyWhereAskedFor) {
  const Tensor x = normal({2, 5, 4}, 54), logits = normal({2, 5, 2, 3}, 55);
  const auto [grad_x, grad_logits, grad_bias] =
      call_conv_backward<DynamicConvOp>(x, x, logits, {false, true, false}, dynamic(1));
  EXPECT_EQ(grad_x.numel(), 0);
  EXPECT_EQ(grad_bias.numel(), 0);
  EXPECT_TRUE(close(grad_logits, gradients(run, x, logits, dynamic(1), x)[1]));
}

}  // namespace
}  // namespace headloom::conv_testing

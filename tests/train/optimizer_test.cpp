#include "headloom/train/optimizer.h"

#include <gmock/gmock.h>
#include <torch/torch.h>

#include <cmath>
#include <limits>

#include "headloom/base/check.h"
#include "tests/train/temporary_folder.h"

namespace headloom::train {
namespace {

using headloom::testing::message_of;
using ::testing::HasSubstr;

struct Model : torch::nn::Module {
  explicit Model(at::ScalarType dtype = at::kDouble) {
    const auto options = at::TensorOptions(dtype);
    torch::manual_seed(3);
    weight = register_parameter("weight", torch::randn({3, 4}, options));
    bias = register_parameter("bias", torch::randn({4}, options));
    gain = register_parameter("gain", torch::randn({}, options));
    kernel = register_parameter("kernel", torch::randn({2, 1, 9}, options));
  }
  at::Tensor weight, bias, gain, kernel;
};

OptimizerConfig config_of(const std::string& name) {
  OptimizerConfig config;
  config.name = name;
  config.beta1 = 0.8;
  config.beta2 = 0.95;
  config.eps = 1e-6;
  config.weight_decay = 0.3;
  return config;
}

// Gradients of step `step`, the same whatever the parameters are.
void set_gradients(torch::nn::Module& model, int64_t step) {
  double phase = static_cast<double>(step);
  for (at::Tensor& parameter : model.parameters()) {
    phase += 0.7;
    const at::Tensor index =
        torch::arange(parameter.numel(), parameter.options().requires_grad(false));
    parameter.mutable_grad() = torch::sin(3 * index + phase).view_as(parameter);
  }
}

double rate_of(int64_t step) {
  return 0.1 / static_cast<double>(step);
}

// Kingma and Ba, algorithm 1, with the decay of either optimizer; one parameter.
struct Reference {
  OptimizerConfig config;
  double decay;
  std::vector<double> value, first, second;

  void step(const at::Tensor& grad, double lr, int64_t t) {
    const at::Tensor flat = grad.reshape({-1}).to(at::kDouble);
    for (size_t i = 0; i < value.size(); ++i) {
      double g = flat[static_cast<int64_t>(i)].item<double>();
      if (config.name == "adamw") {
        value[i] -= lr * decay * value[i];
      } else {
        g += decay * value[i];
      }
      first[i] = config.beta1 * first[i] + (1 - config.beta1) * g;
      second[i] = config.beta2 * second[i] + (1 - config.beta2) * g * g;
      const double m = first[i] / (1 - std::pow(config.beta1, static_cast<double>(t)));
      const double v = second[i] / (1 - std::pow(config.beta2, static_cast<double>(t)));
      value[i] -= lr * m / (std::sqrt(v) + config.eps);
    }
  }
};

std::vector<double> values_of(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.detach().reshape({-1}).to(at::kDouble).contiguous();
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

class OptimizerNamed : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(All, OptimizerNamed, ::testing::Values("adamw", "adam"),
                         [](const auto& info) { return std::string(info.param); });

void expect_reference(const std::string& name, at::ScalarType dtype, double eps) {
  constexpr int64_t kSteps = 6;
  constexpr double kOperations = 16;  // rounded operations a step, generously
  const OptimizerConfig config = config_of(name);
  Model model(dtype);
  Optimizer optimizer(config, model);
  std::vector<Reference> references;
  for (const at::Tensor& parameter : model.parameters()) {
    const std::vector<double> value = values_of(parameter);
    const std::vector<double> zeros(value.size());
    const double decay = parameter.dim() >= 2 ? config.weight_decay : 0.0;
    references.push_back({config, decay, value, zeros, zeros});
  }
  for (int64_t t = 1; t <= kSteps; ++t) {
    set_gradients(model, t);
    optimizer.step(rate_of(t));
    for (size_t p = 0; p < references.size(); ++p) {
      references[p].step(model.parameters()[p].grad(), rate_of(t), t);
    }
  }
  for (size_t p = 0; p < references.size(); ++p) {
    const std::vector<double> actual = values_of(model.parameters()[p]);
    for (size_t i = 0; i < actual.size(); ++i) {
      const double size = std::max(1.0, std::abs(references[p].value[i]));
      EXPECT_NEAR(actual[i], references[p].value[i], kSteps * kOperations * eps * size)
          << "parameter " << p << " element " << i;
    }
  }
}

TEST_P(OptimizerNamed, AgreesWithItsPaperInDouble) {
  expect_reference(GetParam(), at::kDouble, std::numeric_limits<double>::epsilon());
}

TEST_P(OptimizerNamed, AgreesWithItsPaperInFloat) {
  expect_reference(GetParam(), at::kFloat, std::numeric_limits<float>::epsilon());
}

template <class Peer, class Options>
void expect_peer(const std::string& name) {
  const OptimizerConfig config = config_of(name);
  Model ours, theirs;
  const auto options = [&](double decay) {
    return std::make_unique<Options>(Options(rate_of(1))
                                         .betas({config.beta1, config.beta2})
                                         .eps(config.eps)
                                         .weight_decay(decay));
  };
  std::vector<torch::optim::OptimizerParamGroup> groups;
  groups.emplace_back(std::vector<at::Tensor>{theirs.weight, theirs.kernel},
                      options(config.weight_decay));
  groups.emplace_back(std::vector<at::Tensor>{theirs.bias, theirs.gain}, options(0.0));
  Peer peer(std::move(groups));
  Optimizer optimizer(config, ours);
  for (int64_t t = 1; t <= 5; ++t) {
    set_gradients(ours, t);
    set_gradients(theirs, t);
    optimizer.step(rate_of(1));
    peer.step();
  }
  for (size_t p = 0; p < ours.parameters().size(); ++p) {
    EXPECT_TRUE(torch::allclose(ours.parameters()[p], theirs.parameters()[p], 1e-12, 1e-12));
  }
  EXPECT_FALSE(torch::equal(ours.weight, Model().weight));
}

TEST(Optimizer, AdamWAgreesWithTorchs) {
  expect_peer<torch::optim::AdamW, torch::optim::AdamWOptions>("adamw");
}

TEST(Optimizer, AdamAgreesWithTorchs) {
  expect_peer<torch::optim::Adam, torch::optim::AdamOptions>("adam");
}

TEST(Optimizer, LeavesParametersWithoutGradientAlone) {
  Model model;
  Optimizer optimizer(config_of("adamw"), model);
  set_gradients(model, 1);
  optimizer.step(0.1);
  const at::Tensor before = model.weight.detach().clone();
  optimizer.zero_grad();
  for (const at::Tensor& parameter : model.parameters()) EXPECT_FALSE(parameter.grad().defined());
  optimizer.step(0.1);
  model.bias.mutable_grad() = torch::ones_like(model.bias);
  optimizer.step(0.1);
  EXPECT_TRUE(torch::equal(model.weight, before));
  for (const auto& [name, tensor] : optimizer.state()) {
    const float steps = name == "bias.step" ? 2.0f : 1.0f;
    if (name.ends_with(".step")) {
      EXPECT_EQ(tensor.item<float>(), steps) << name;
    }
  }
}

TEST(Optimizer, TiedParametersAreOne) {
  struct Tied : Model {
    Tied() { register_parameter("head", weight); }
  } tied;
  Model model;
  Optimizer of_tied(config_of("adamw"), tied), of_model(config_of("adamw"), model);
  EXPECT_EQ(of_tied.state().size(), of_model.state().size());
  for (auto& item : tied.named_parameters()) {
    item.value().mutable_grad() = torch::ones_like(item.value());
  }
  for (at::Tensor& parameter : model.parameters()) {
    parameter.mutable_grad() = torch::ones_like(parameter);
  }
  EXPECT_EQ(of_tied.scale_and_clip(1.0, 0.0), of_model.scale_and_clip(1.0, 0.0));
  of_tied.step(0.1);
  of_model.step(0.1);
  EXPECT_TRUE(torch::equal(tied.weight, model.weight));
}

TEST(Optimizer, FrozenParametersAreLeftOut) {
  Model model;
  model.weight.requires_grad_(false);
  EXPECT_EQ(Optimizer(config_of("adamw"), model).state().size(), 3 * 3u);
}

TEST(Optimizer, TakesGradientsOfAnyStrides) {
  Model model, other;
  Optimizer optimizer(config_of("adamw"), model), plain(config_of("adamw"), other);
  set_gradients(model, 1);
  set_gradients(other, 1);
  model.weight.mutable_grad() = model.weight.grad().t().contiguous().t();
  model.bias.mutable_grad() = torch::ones({1}, at::kDouble).expand({4});
  other.bias.mutable_grad() = torch::ones({4}, at::kDouble);
  optimizer.scale_and_clip(0.5, 0.0);
  plain.scale_and_clip(0.5, 0.0);
  optimizer.step(0.1);
  plain.step(0.1);
  EXPECT_TRUE(torch::equal(model.weight, other.weight));
  EXPECT_TRUE(torch::equal(model.bias, other.bias));
}

double norm_of(const Model& model) {
  double squares = 0;
  for (const at::Tensor& parameter : model.parameters()) {
    for (double value : values_of(parameter.grad())) squares += value * value;
  }
  return std::sqrt(squares);
}

TEST(Optimizer, ScalesAndClips) {
  const double tolerance = 64 * std::numeric_limits<double>::epsilon();
  Model model;
  Optimizer optimizer(config_of("adamw"), model);
  set_gradients(model, 1);
  const double norm = norm_of(model);
  const at::Tensor grad = model.weight.grad().clone();

  EXPECT_NEAR(optimizer.scale_and_clip(1.0, 0.0), norm, norm * tolerance);
  EXPECT_NEAR(optimizer.scale_and_clip(1.0, norm * 1.01), norm, norm * tolerance);
  EXPECT_TRUE(torch::equal(model.weight.grad(), grad));

  EXPECT_NEAR(optimizer.scale_and_clip(0.25, 0.0), norm / 4, norm * tolerance);
  EXPECT_TRUE(torch::equal(model.weight.grad(), grad / 4));

  EXPECT_NEAR(optimizer.scale_and_clip(4.0, norm / 2), norm, norm * tolerance);
  EXPECT_NEAR(norm_of(model), norm / 2, norm * tolerance);
  EXPECT_TRUE(torch::allclose(model.weight.grad(), grad / 2, tolerance, tolerance));
}

TEST(Optimizer, NormOfNothingIsZeroAndOfNonFiniteIsNot) {
  Model model;
  Optimizer optimizer(config_of("adamw"), model);
  EXPECT_EQ(optimizer.scale_and_clip(1.0, 1.0), 0.0);
  for (double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    set_gradients(model, 1);
    model.gain.mutable_grad() = torch::full({}, bad, at::kDouble);
    EXPECT_FALSE(std::isfinite(optimizer.scale_and_clip(1.0, 1.0))) << bad;
  }
}

TEST(Optimizer, NormOfHalfPrecisionDoesNotOverflow) {
  Model model(at::kHalf);
  Optimizer optimizer(config_of("adamw"), model);
  for (at::Tensor& parameter : model.parameters()) {
    parameter.mutable_grad() = torch::full_like(parameter, 1024.0).detach();
  }
  const double expected = 1024.0 * std::sqrt(12 + 4 + 1 + 18);
  EXPECT_NEAR(optimizer.scale_and_clip(1.0, 1.0), expected,
              expected * 8 * std::numeric_limits<float>::epsilon());
}

TEST_P(OptimizerNamed, ContinuesFromItsStateBitForBit) {
  Model straight(at::kFloat), resumed(at::kFloat);
  Optimizer optimizer(config_of(GetParam()), straight);
  for (int64_t t = 1; t <= 4; ++t) {
    set_gradients(straight, t);
    optimizer.step(rate_of(t));
    if (t != 2) continue;
    for (size_t p = 0; p < straight.parameters().size(); ++p) {
      resumed.parameters()[p].detach().copy_(straight.parameters()[p].detach());
    }
    const headloom::testing::TemporaryFolder folder;
    write_safetensors(folder.file("state"), optimizer.state());
    NamedTensors state = read_safetensors(folder.file("state")).tensors;
    std::reverse(state.begin(), state.end());
    Optimizer second(config_of(GetParam()), resumed);
    second.load(state);
    for (int64_t s = 3; s <= 4; ++s) {
      set_gradients(resumed, s);
      second.step(rate_of(s));
    }
  }
  for (size_t p = 0; p < straight.parameters().size(); ++p) {
    EXPECT_TRUE(torch::equal(straight.parameters()[p], resumed.parameters()[p])) << p;
  }
}

TEST(Optimizer, StateIsNamedAfterTheParameters) {
  Model model;
  std::vector<std::string> names;
  for (const auto& [name, tensor] : Optimizer(config_of("adam"), model).state()) {
    if (name.starts_with("weight.")) names.push_back(name);
  }
  EXPECT_THAT(names,
              ::testing::ElementsAre("weight.step", "weight.first_moment", "weight.second_moment"));
}

TEST(Optimizer, RefusesTheStateOfAnotherModel) {
  Model model;
  Optimizer optimizer(config_of("adamw"), model);
  NamedTensors good;
  for (const auto& [name, tensor] : optimizer.state()) {
    good.emplace_back(name, torch::full_like(tensor, 5));
  }
  const auto message = [&](const auto& change) {
    NamedTensors state = good;
    change(state);
    return message_of<Error>([&] { optimizer.load(state); });
  };
  EXPECT_THAT(message([](NamedTensors& s) { s.pop_back(); }), HasSubstr("found none of that name"));
  EXPECT_THAT(message([](NamedTensors& s) { s.back().first = "other"; }),
              HasSubstr("found none of that name"));
  EXPECT_THAT(message([](NamedTensors& s) { s.emplace_back("more", s[0].second); }),
              HasSubstr("expected a state of 12 tensors; found also more"));
  EXPECT_THAT(message([](NamedTensors& s) { s.push_back(s[0]); }), HasSubstr("again"));
  EXPECT_THAT(message([](NamedTensors& s) {
                s[1].second = torch::zeros({2, 2}, at::kDouble);
              }),
              HasSubstr("Double of shape [2, 2]"));
  EXPECT_THAT(message([](NamedTensors& s) { s[1].second = s[1].second.to(at::kFloat); }),
              HasSubstr("found Float of shape"));
  for (const auto& [name, tensor] : optimizer.state()) {
    EXPECT_EQ(tensor.abs().sum().item<double>(), 0.0) << name << " changed";
  }
  optimizer.load(good);
  EXPECT_EQ(optimizer.state()[0].second.item<double>(), 5.0);
}

TEST(Optimizer, RefusesImpossibleConfigurations) {
  Model model;
  const auto message = [&](const auto& change) {
    OptimizerConfig config;
    change(config);
    return message_of<Error>([&] { Optimizer(config, model); });
  };
  EXPECT_THAT(message([](OptimizerConfig& c) { c.name = "adamv"; }),
              HasSubstr("expected one of adamw, adam; found \"adamv\". Did you mean \"adamw\"?"));
  EXPECT_THAT(message([](OptimizerConfig& c) { c.beta1 = 1.0; }), HasSubstr("below 1; found 1"));
  EXPECT_THAT(message([](OptimizerConfig& c) { c.beta2 = -0.1; }), HasSubstr("found -0.1"));
  EXPECT_THAT(message([](OptimizerConfig& c) { c.eps = 0; }), HasSubstr("eps above 0; found 0"));
  EXPECT_THAT(message([](OptimizerConfig& c) { c.weight_decay = -1; }), HasSubstr("found -1"));
}

TEST(Optimizer, RefusesSparseGradients) {
  Model model;
  Optimizer optimizer(config_of("adamw"), model);
  model.weight.mutable_grad() = torch::ones({3, 4}, at::kDouble).to_sparse();
  EXPECT_THAT(message_of<Error>([&] { optimizer.step(0.1); }),
              HasSubstr("a dense gradient of weight; found Sparse"));
}

}  // namespace
}  // namespace headloom::train

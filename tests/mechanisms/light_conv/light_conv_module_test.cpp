#include <gmock/gmock.h>

#include <cmath>

#include "headloom/base/check.h"
#include "headloom/mechanisms/registry.h"
#include "tests/mechanisms/light_conv/light_conv_cases.h"

namespace headloom::conv_testing {
namespace {

using ::testing::UnorderedElementsAre;

std::shared_ptr<TokenMixer> build(const std::string& name, const Options& options, bool causal,
                                  int64_t layer = 0, double dropout = 0.0, int64_t dim = 8) {
  at::manual_seed(3);
  MixerConfig config;
  config.dim = dim;
  config.heads = 2;
  config.causal = causal;
  config.layer = layer;
  config.dropout = dropout;
  auto mixer = make_mixer(name, config, options);
  const at::NoGradGuard off;
  // Zero biases would hide one that is left out.
  int64_t seed = 200;
  for (auto& parameter : mixer->parameters()) {
    parameter.add_(0.1 * normal(parameter.sizes(), seed++));
  }
  mixer->to(at::kDouble);
  mixer->eval();
  return mixer;
}

Options width(int64_t kernel_size, Options more = {}) {
  more["kernel_sizes"] = std::vector<int64_t>{kernel_size};
  return more;
}

std::map<std::string, Tensor> parameters(const TokenMixer& mixer) {
  std::map<std::string, Tensor> named;
  for (const auto& entry : mixer.named_parameters()) named[entry.key()] = entry.value().detach();
  return named;
}

struct Form {
  const char* name;
  Options options;
};

std::vector<Form> forms(int64_t kernel_size) {
  return {{"light_conv", width(kernel_size)},
          {"light_conv", width(kernel_size, {{"glu", false}, {"weight_softmax", false}})},
          {"dynamic_conv", width(kernel_size, {{"conv_bias", true}, {"kernel_bias", true}})},
          {"dynamic_conv", width(kernel_size, {{"renorm_padding", true}, {"glu", false}})}};
}

TEST(ConvMixer, ParametersByName) {
  const auto names = [](const char* name, const Options& options) {
    std::vector<std::string> found;
    for (const auto& [key, value] : parameters(*build(name, options, true))) found.push_back(key);
    return found;
  };
  EXPECT_THAT(names("light_conv", {}),
              UnorderedElementsAre("in_proj.weight", "in_proj.bias", "out_proj.weight",
                                   "out_proj.bias", "weight"));
  EXPECT_THAT(
      names("dynamic_conv", {{"conv_bias", true}, {"kernel_bias", true}}),
      UnorderedElementsAre("in_proj.weight", "in_proj.bias", "out_proj.weight", "out_proj.bias",
                           "conv_bias", "kernel_proj.weight", "kernel_proj.bias"));
}

TEST(ConvMixer, KernelWidthsAndShapesByLayer) {
  const std::vector<int64_t> widths{3, 7, 15, 31, 31, 31, 31, 31};
  for (int64_t layer = 0; layer < 8; ++layer) {
    const auto light_parameters = parameters(*build("light_conv", {}, false, layer));
    EXPECT_EQ(light_parameters.at("weight").sizes(), at::IntArrayRef({2, widths[layer]}));
    EXPECT_EQ(light_parameters.at("in_proj.weight").sizes(), at::IntArrayRef({16, 8}));
    const auto dynamic_parameters =
        parameters(*build("dynamic_conv", {{"glu", false}}, false, layer));
    EXPECT_EQ(dynamic_parameters.at("kernel_proj.weight").sizes(),
              at::IntArrayRef({2 * widths[layer], 8}));
    EXPECT_EQ(dynamic_parameters.at("in_proj.weight").sizes(), at::IntArrayRef({8, 8}));
  }
}

TEST(ConvMixer, StartsXavierUniform) {
  MixerConfig config;
  config.dim = 64;
  config.heads = 16;
  const auto bound_of = [&](const char* name, const char* parameter) {
    const Tensor value = parameters(*make_mixer(name, config, width(31))).at(parameter);
    return value.abs().max().item<double>();
  };
  const auto expect = [](double found, double bound) {
    EXPECT_LE(found, bound);
    EXPECT_GT(found, 0.95 * bound);
  };
  expect(bound_of("light_conv", "weight"), std::sqrt(6.0 / (16 + 31)));
  expect(bound_of("dynamic_conv", "kernel_proj.weight"), std::sqrt(6.0 / (64 + 16 * 31)));
  expect(bound_of("light_conv", "in_proj.weight"), std::sqrt(6.0 / (64 + 128)));
  EXPECT_EQ(bound_of("light_conv", "in_proj.bias"), 0.0);
}

// The whole layer spelt out with other operations.
TEST(ConvMixer, IsTheLayerOfThePaper) {
  const Tensor x = normal({2, 9, 8}, 1);
  for (const bool causal : {false, true}) {
    const auto mixer = build("dynamic_conv", width(4, {{"conv_bias", true}}), causal);
    auto p = parameters(*mixer);
    const Tensor hidden = at::linear(x, p["in_proj.weight"], p["in_proj.bias"]);
    const Tensor values = hidden.narrow(2, 0, 8) * hidden.narrow(2, 8, 8).sigmoid();
    const Tensor weights =
        at::linear(values, p["kernel_proj.weight"]).view({2, 9, 2, 4}).softmax(-1);
    Tensor mixed = at::zeros_like(values);
    const int64_t left = causal ? 3 : 2;
    for (int64_t t = 0; t < 9; ++t) {
      for (int64_t k = 0; k < 4; ++k) {
        const int64_t source = t + k - left;
        if (source < 0 || source >= 9) continue;
        const Tensor w = weights.select(1, t).select(2, k).repeat_interleave(4, 1);  // [B, C]
        mixed.select(1, t) += w * values.select(1, source);
      }
    }
    const Tensor expected =
        at::linear(mixed + p["conv_bias"], p["out_proj.weight"], p["out_proj.bias"]);
    EXPECT_TRUE(close(mixer->forward(x, {}), expected));
  }
}

TEST(ConvMixer, TheSecondHalfGatesTheFirst) {
  const auto mixer = build("light_conv", width(1), true);
  const at::NoGradGuard off;
  auto p = parameters(*mixer);
  p["in_proj.weight"].zero_();
  p["in_proj.weight"].narrow(0, 0, 8).copy_(at::eye(8, at::kDouble));
  p["out_proj.weight"].copy_(at::eye(8, at::kDouble));
  p["out_proj.bias"].zero_();
  p["in_proj.bias"].zero_();
  const Tensor x = normal({1, 4, 8}, 2);
  p["in_proj.bias"].narrow(0, 8, 8).fill_(100.0);
  EXPECT_TRUE(close(mixer->forward(x, {}), x));
  p["in_proj.bias"].narrow(0, 8, 8).fill_(-100.0);
  EXPECT_LT(mixer->forward(x, {}).abs().max().item<double>(), 1e-40);
}

Tensor in_steps(TokenMixer& mixer, const Tensor& x, const std::vector<int64_t>& pieces) {
  const auto state = mixer.new_state(x.size(0));
  const int64_t bytes = state->bytes();
  std::vector<Tensor> outputs;
  for (const int64_t piece : pieces) {
    outputs.push_back(mixer.step(x.narrow(1, state->length(), piece), *state));
    EXPECT_EQ(state->bytes(), bytes) << "after " << state->length() << " tokens";
  }
  EXPECT_EQ(state->length(), x.size(1));
  return at::cat(outputs, 1);
}

TEST(ConvMixer, StepsEqualTheWholePassForEveryLength) {
  const at::NoGradGuard off;
  for (const int64_t kernel_size : {1, 4, 5}) {
    for (const Form& form : forms(kernel_size)) {
      const auto mixer = build(form.name, form.options, true);
      for (int64_t time = 1; time <= 2 * kernel_size; ++time) {
        const Tensor x = normal({3, time, 8}, time);
        EXPECT_TRUE(
            close(in_steps(*mixer, x, std::vector<int64_t>(time, 1)), mixer->forward(x, {})))
            << form.name << ", K " << kernel_size << ", T " << time;
      }
    }
  }
}

TEST(ConvMixer, StepsOfAnySizeEqualTheWholePass) {
  const at::NoGradGuard off;
  const Tensor x = normal({2, 97, 8}, 4);
  for (const Form& form : forms(7)) {
    const auto mixer = build(form.name, form.options, true);
    const Tensor whole = mixer->forward(x, {});
    for (const std::vector<int64_t>& pieces :
         {std::vector<int64_t>{97}, {1, 2, 3, 5, 8, 13, 21, 34, 10}, {6, 1, 90}, {40, 57}}) {
      EXPECT_TRUE(close(in_steps(*mixer, x, pieces), whole)) << form.name;
    }
  }
}

TEST(ConvMixer, StepsUnderAutogradKeepNoHistory) {
  const auto mixer = build("light_conv", width(3), true);
  const auto state = mixer->new_state(1);
  const Tensor first = mixer->step(normal({1, 2, 8}, 5), *state);
  const Tensor second = mixer->step(normal({1, 2, 8}, 6), *state);
  EXPECT_NO_THROW(second.sum().backward());
  EXPECT_NO_THROW(first.sum().backward());
}

TEST(ConvMixer, RowsContinueAfterReorder) {
  const at::NoGradGuard off;
  const Tensor index = at::tensor({2, 0, 0, 1}, at::kLong);
  const Tensor start = normal({3, 6, 8}, 7), rest = normal({4, 5, 8}, 8);
  for (const Form& form : forms(5)) {
    const auto mixer = build(form.name, form.options, true);
    const auto state = mixer->new_state(3);
    mixer->step(start, *state);
    state->reorder(index);
    const Tensor found = mixer->step(rest, *state);
    const Tensor whole = at::cat({start.index_select(0, index), rest}, 1);
    EXPECT_TRUE(close(found, mixer->forward(whole, {}).narrow(1, 6, 5))) << form.name;
  }
}

TEST(ConvMixer, RefusesToDecodeWhatItCannot) {
  for (const char* name : {"light_conv", "dynamic_conv"}) {
    const auto message_of = [&](const std::function<void()>& call) -> std::string {
      try {
        call();
      } catch (const Error& error) {
        return error.what();
      }
      return "no refusal";
    };
    EXPECT_THAT(message_of([&] { build(name, {}, false)->new_state(1); }),
                ::testing::HasSubstr("a causal mixer to decode with"));
    const auto mixer = build(name, {}, true);
    const auto state = mixer->new_state(2);
    EXPECT_THAT(message_of([&] {
                  mixer->step(normal({3, 1, 8}, 1), *state);
                }),
                ::testing::HasSubstr("a batch of 2; found a batch of 3"));
    EXPECT_THAT(message_of([&] {
                  mixer->cross(normal({3, 1, 8}, 1), normal({3, 1, 8}, 1), {});
                }),
                ::testing::HasSubstr("expected"));
  }
}

TEST(ConvMixer, PaddingAndPackingHideWhatTheyShould) {
  const at::NoGradGuard off;
  const Tensor x = normal({1, 9, 8}, 9);
  for (const bool causal : {false, true}) {
    for (const Form& form : forms(5)) {
      const auto mixer = build(form.name, form.options, causal);
      const Tensor alone = mixer->forward(x, {});
      const Tensor garbage = at::full({1, 4, 8}, 1e3, at::kDouble);
      Masks masks;
      masks.key_padding_mask = mask({"xxxx........."});
      const Tensor left = mixer->forward(at::cat({garbage, x}, 1), masks).narrow(1, 4, 9);
      EXPECT_TRUE(close(left, alone)) << form.name;
      masks.key_padding_mask = mask({".........xxxx"});
      const Tensor right = mixer->forward(at::cat({x, garbage}, 1), masks).narrow(1, 0, 9);
      EXPECT_TRUE(close(right, alone)) << form.name;
      Masks packed;
      packed.cu_seqlens = at::tensor({0, 9, 18}, at::kLong);
      const Tensor twice = mixer->forward(at::cat({x, x}, 1), packed);
      EXPECT_TRUE(close(twice, at::cat({alone, alone}, 1))) << form.name;
    }
  }
}

// A dynamic kernel depends on its own token alone: the change of one token reaches K positions.
TEST(ConvMixer, ATokenReachesKPositions) {
  const at::NoGradGuard off;
  const Tensor x = normal({1, 14, 8}, 10), other = x.clone();
  other.select(1, 6).add_(1.0);
  for (const bool causal : {false, true}) {
    const auto mixer = build("dynamic_conv", width(5), causal);
    const Tensor change = (mixer->forward(x, {}) - mixer->forward(other, {})).abs().amax({0, 2});
    const int64_t first = causal ? 6 : 4;
    for (int64_t t = 0; t < 14; ++t) {
      EXPECT_EQ(change[t].item<double>() > 0.0, t >= first && t < first + 5) << t;
    }
  }
}

TEST(ConvMixer, DropsInTrainingOnly) {
  const Tensor x = normal({1, 20, 8}, 11);
  const std::vector<Form> dropping{
      {"light_conv", width(3)},
      {"light_conv", width(3, {{"dropconnect", std::string("per_position")}})},
      {"dynamic_conv", width(3)},
      {"dynamic_conv", width(3, {{"weight_dropout", 0.0}, {"input_dropout", 0.4}})}};
  for (const Form& form : dropping) {
    const auto mixer = build(form.name, form.options, true, 0, 0.4);
    const Tensor kept = mixer->forward(x, {});
    EXPECT_TRUE(close(kept, build(form.name, form.options, true)->forward(x, {})));
    mixer->train();
    at::manual_seed(1);
    const Tensor first = mixer->forward(x, {});
    EXPECT_FALSE(close(first, kept)) << form.name;
    at::manual_seed(1);
    EXPECT_TRUE(at::equal(mixer->forward(x, {}), first)) << form.name;
  }
}

TEST(ConvMixer, FlopsCountEveryMatrix) {
  const double tokens = 10, glu = 3 * 8 * 8, taps = 5 * 8;
  EXPECT_EQ(build("light_conv", width(5), true)->flops(10), 2 * tokens * (glu + taps));
  EXPECT_EQ(build("dynamic_conv", width(5), true)->flops(10),
            2 * tokens * (glu + taps + 8 * 2 * 5));
}

}  // namespace
}  // namespace headloom::conv_testing

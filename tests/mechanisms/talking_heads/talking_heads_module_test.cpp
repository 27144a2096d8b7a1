#include "headloom/mechanisms/talking_heads/talking_heads_module.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "headloom/base/check.h"
#include "tests/support/closeness.h"
#include "tests/support/mixer_conformance.h"

namespace headloom::testing {
namespace {

using at::Tensor;

const std::vector<std::string> kParameters{"q_proj.weight",   "k_proj.weight", "v_proj.weight",
                                           "out_proj.weight", "logits_proj",   "weights_proj"};

std::vector<std::string> with(std::vector<std::string> more) {
  std::vector<std::string> all = kParameters;
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

Options options(std::initializer_list<std::pair<const std::string, OptionValue>> values) {
  return Options(values);
}

const bool kPaper = join(Mixer{
    .id = "talking_heads", .name = "talking_heads", .parameters = kParameters, .cross = true});
const bool kIdentity =
    join(Mixer{.id = "talking_heads_identity",
               .name = "talking_heads",
               .options = options({{"init", std::string("identity")}}),
               .parameters = with({"q_proj.bias", "k_proj.bias", "v_proj.bias", "out_proj.bias"}),
               .idle = {"k_proj.bias"},
               .cross = true});
const bool kDynamic = join(Mixer{
    .id = "talking_heads_dynamic",
    .name = "talking_heads",
    .options = options({{"dynamic", std::string("x2l,m2l,x2w,m2w")},
                        {"relative_bias", std::string("t5")},
                        {"buckets", int64_t{8}},
                        {"max_distance", int64_t{12}},
                        {"dropout_site", std::string("per_key")}}),
    .parameters = with({"x2l.weight", "m2l.weight", "x2w.weight", "m2w.weight", "relative_bias"}),
    .cross = true});
const bool kUnequal = join(Mixer{.id = "talking_heads_unequal",
                                 .name = "talking_heads",
                                 .options = options({{"key_heads", int64_t{2}},
                                                     {"value_heads", int64_t{6}},
                                                     {"key_width", int64_t{5}},
                                                     {"value_width", int64_t{2}},
                                                     {"dropout_site", std::string("before_mix")}}),
                                 .parameters = kParameters,
                                 .cross = true});
const bool kGrouped =
    join(Mixer{.id = "talking_heads_grouped",
               .name = "talking_heads",
               .options = options({{"groups", int64_t{3}}, {"dynamic", std::string("m2w")}}),
               .parameters = with({"m2w.weight"}),
               .cross = true});

std::shared_ptr<TokenMixer> build(const std::string& name, const Options& chosen, bool causal,
                                  int64_t dim = 12, int64_t heads = 3) {
  MixerConfig config;
  config.dim = dim;
  config.heads = heads;
  config.causal = causal;
  const auto mixer = make_mixer(name, config, chosen);
  mixer->to(at::kDouble);
  return mixer;
}

// Every parameter that both have, by name.
void convert(TokenMixer& from, TokenMixer& to) {
  const at::NoGradGuard off;
  const auto source = from.named_parameters();
  for (auto& parameter : to.named_parameters()) {
    if (const Tensor* weight = source.find(parameter.key())) parameter.value().copy_(*weight);
  }
}

TEST(TalkingHeadsMixer, IdentityConvertsPlainAttention) {
  const at::NoGradGuard off;
  for (const bool causal : {false, true}) {
    const auto plain = build("dot_product", {}, causal);
    for (auto& parameter : plain->parameters()) {
      parameter.copy_(normal("trained", parameter.sizes()) * 0.3);
    }
    Options chosen{{"init", std::string("identity")},
                   {"dynamic", std::string("x2l,m2l,x2w,m2w")},
                   {"relative_bias", std::string("t5")}};
    const auto talking = build("talking_heads", chosen, causal);
    convert(*plain, *talking);
    const Tensor x = normal("x", {2, 17, 12});
    Masks masks;
    masks.key_padding_mask = at::arange(17).unsqueeze(0) >= at::tensor({17, 12}).unsqueeze(1);
    const Tensor expected = plain->forward(x, masks);
    const auto difference = differs_by_more_than_rounding(talking->forward(x, masks), expected);
    EXPECT_FALSE(difference) << *difference;
    const Tensor memory = normal("memory", {2, 5, 12});
    const auto across =
        differs_by_more_than_rounding(talking->cross(x, memory, {}), plain->cross(x, memory, {}));
    EXPECT_FALSE(across) << *across;
  }
}

double variance(const Tensor& weight) {
  return weight.var(/*unbiased=*/false).item<double>();
}

// A normal variable cut at two deviations has 0.774 of the variance; the standard error of a
// variance of n numbers is below sqrt(2 / n).
void expect_variance(const Tensor& weight, double nominal) {
  const double expected = 0.7737413 * nominal;
  const double error = sigmas() * expected * std::sqrt(2.0 / static_cast<double>(weight.numel()));
  EXPECT_NEAR(variance(weight), expected, error);
  EXPECT_LE(magnitude(weight), 2.0 * std::sqrt(nominal) * (1 + 1e-6));
}

TEST(TalkingHeadsMixer, PaperInitialisation) {
  const auto mixer = build("talking_heads",
                           {{"dynamic", std::string("x2l,m2w")},
                            {"key_heads", int64_t{32}},
                            {"key_width", int64_t{8}},
                            {"value_heads", int64_t{32}},
                            {"value_width", int64_t{4}}},
                           false, 96, 24);
  const auto parameters = mixer->named_parameters();
  expect_variance(parameters["q_proj.weight"], 1.0 / (8 * 96));
  expect_variance(parameters["k_proj.weight"], 1.0 / 96);
  expect_variance(parameters["v_proj.weight"], 1.0 / 96);
  expect_variance(parameters["out_proj.weight"], 1.0 / (32 * 4));
  expect_variance(parameters["logits_proj"], 1.0 / 32);
  expect_variance(parameters["weights_proj"], 1.0 / 24);
  expect_variance(parameters["x2l.weight"], 1e-2 / (32 * 96));
  expect_variance(parameters["m2w.weight"], 1e-2 / (24 * 96));
}

// Values of the rule in T5's code.
TEST(TalkingHeadsMixer, BucketsOfT5) {
  const Tensor position =
      at::tensor({-200, -128, -100, -16, -15, -3, -1, 0, 1, 7, 8, 20, 200}, at::kLong);
  EXPECT_TRUE(at::equal(t5_buckets(position, true, 32, 128),
                        at::tensor({31, 31, 30, 16, 15, 3, 1, 0, 0, 0, 0, 0, 0}, at::kLong)));
  EXPECT_TRUE(at::equal(t5_buckets(position, false, 32, 128),
                        at::tensor({15, 15, 15, 10, 9, 3, 1, 0, 17, 23, 24, 26, 31}, at::kLong)));
}

// The bias of a pair depends on its distance alone, and on the table through its bucket.
TEST(TalkingHeadsMixer, RelativeBiasIsThatOfThePairs) {
  const at::NoGradGuard off;
  for (const bool causal : {false, true}) {
    const auto mixer = build("talking_heads",
                             {{"relative_bias", std::string("t5")},
                              {"mixing", std::string("none")},
                              {"scale", std::string("explicit")}},
                             causal);
    auto parameters = mixer->named_parameters();
    parameters["relative_bias"].copy_(normal("table", {3, 32}));
    const Tensor x = normal("x", {1, 9, 12});
    const auto heads = [&](const char* name) {
      return at::linear(x, parameters[name]).view({1, 9, 3, 4}).transpose(1, 2);
    };
    const Tensor position = at::arange(9).unsqueeze(0) - at::arange(9).unsqueeze(1);  // key - query
    const Tensor bias = parameters["relative_bias"]
                            .index_select(1, t5_buckets(position, causal, 32, 128).flatten())
                            .view({3, 9, 9});
    Tensor logits =
        at::matmul(heads("q_proj.weight"), heads("k_proj.weight").transpose(-2, -1)) / 2.0 + bias;
    if (causal) logits = logits.masked_fill(position > 0, -INFINITY);
    const Tensor mixed = at::matmul(logits.softmax(-1), heads("v_proj.weight"));
    const Tensor expected =
        at::linear(mixed.transpose(1, 2).flatten(2), parameters["out_proj.weight"]);
    const auto difference = differs_by_more_than_rounding(mixer->forward(x, {}), expected);
    EXPECT_FALSE(difference) << *difference;
  }
}

TEST(TalkingHeadsMixer, Refusals) {
  const auto message = [](const Options& chosen) -> std::string {
    try {
      build("talking_heads", chosen, true);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  const auto says = [&](const Options& chosen, const std::string& words) {
    EXPECT_NE(message(chosen).find(words), std::string::npos) << message(chosen);
  };
  says({{"init", std::string("identty")}}, "identity");
  says({{"key_heads", int64_t{0}}}, "heads and widths of 1 or more");
  says({{"groups", int64_t{2}}}, "groups that divide the counts of heads");
  says({{"mixing", std::string("logits")}, {"value_heads", int64_t{6}}},
       "equal counts of heads where they are not mixed");
  says({{"init", std::string("identity")}, {"value_heads", int64_t{6}}},
       "equal counts of heads with init = \"identity\"");
  says({{"dynamic", std::string("x2l,x2y")}}, "some of \"x2l,m2l,x2w,m2w\"");
  says({{"dynamic", std::string("x2l")}, {"mixing", std::string("weights")}},
       "a mix that x2l adds to");
  says({{"buckets", int64_t{6}}}, "buckets a multiple of 4");
}

TEST(TalkingHeadsMixer, CountsOperations) {
  const auto flops = [](const Options& chosen) {
    return build("talking_heads", chosen, false)->flops(10);
  };
  const double plain = 10 * 8 * 12 * 12 + 100 * 4 * 12;
  EXPECT_DOUBLE_EQ(flops({{"mixing", std::string("none")}}), plain);
  EXPECT_DOUBLE_EQ(flops({}), plain + 100 * 4 * 9);
  EXPECT_DOUBLE_EQ(flops({{"dynamic", std::string("x2l")}}), plain + 100 * 6 * 9 + 10 * 2 * 12 * 9);
}

}  // namespace
}  // namespace headloom::testing

// B batch, T tokens, V vocabulary.
#include "headloom/nn/generate.h"

#include <ATen/CPUGeneratorImpl.h>

#include "tests/nn/nn_support.h"

namespace headloom::nn {
namespace {

using at::Tensor;
using ::testing::HasSubstr;

SamplingOptions at_temperature(double temperature, uint64_t seed = 3) {
  SamplingOptions options;
  options.temperature = temperature;
  options.seed = seed;
  return options;
}

// Larger weights than a fresh model's, so that the most probable token is clear; untied, so that a
// token does not predict itself.
std::shared_ptr<LanguageModel> decided_model(const TransformerConfig& config) {
  auto model = std::make_shared<LanguageModel>(config, /*tie_embedding=*/false);
  const torch::NoGradGuard no_grad;
  for (Tensor& parameter : model->parameters()) parameter.add_(at::randn_like(parameter), 0.3);
  return model;
}

// The same generation without a state: the whole sequence again for each token.
Tensor generate_by_recomputation(LanguageModel& model, Tensor tokens, int64_t length,
                                 const SamplingOptions& options) {
  const torch::NoGradGuard no_grad;
  model.eval();
  for (int64_t i = 0; i < length; ++i) {
    const Tensor logits = model.forward(tokens).select(1, tokens.size(1) - 1);
    tokens = at::cat({tokens, sample(logits, options, i).unsqueeze(1)}, 1);
  }
  return tokens;
}

class EveryGenerator : public ::testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(Generate, EveryGenerator, ::testing::ValuesIn(mechanism_names()),
                         [](const auto& info) { return info.param; });

TEST_P(EveryGenerator, TheStateChangesNoToken) {
  TransformerConfig config = causal_config();
  config.mixer = GetParam();
  const Built built = build_transformer(config);
  if (!built.model) GTEST_SKIP() << built.refusal;
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    const auto model = decided_model(config);
    model->to(type);
    const Tensor prompts = random_tokens(6, 5);
    for (const double temperature : {0.0, 0.8}) {
      const Tensor found = generate(*model, prompts, 27, at_temperature(temperature));
      EXPECT_TRUE(at::equal(
          found, generate_by_recomputation(*model, prompts, 27, at_temperature(temperature))))
          << "temperature " << temperature;
      if (temperature == 0.0) continue;  // greedy may rightly settle on one token
      EXPECT_GT(std::get<0>(at::_unique(found.narrow(1, 5, 27))).numel(), 3) << "too easy";
    }
  }
}

TEST(Generate, IsAFunctionOfPromptAndSeed) {
  const auto model = decided_model(causal_config());
  const Tensor prompts = random_tokens(2, 3);
  const Tensor found = generate(*model, prompts, 20, at_temperature(1.0));
  ASSERT_EQ(found.sizes(), (std::vector<int64_t>{2, 23}));
  EXPECT_TRUE(at::equal(found.narrow(1, 0, 3), prompts));
  EXPECT_TRUE(at::equal(generate(*model, prompts, 20, at_temperature(1.0)), found));
  EXPECT_FALSE(at::equal(generate(*model, prompts, 20, at_temperature(1.0, 4)), found));
}

TEST(Generate, LeavesTorchsGeneratorAlone) {
  const auto model = decided_model(causal_config());
  const Tensor prompts = random_tokens(2, 3);
  const at::Generator generator = at::detail::getDefaultCPUGenerator();
  const Tensor before = generator.get_state();
  generate(*model, prompts, 10, at_temperature(1.0));
  EXPECT_TRUE(at::equal(generator.get_state(), before));
}

TEST(Generate, RunsInEvaluationModeAndRestoresEveryPart) {
  TransformerConfig config = causal_config();
  config.dropout = config.mixing_dropout = 0.5;
  const auto model = decided_model(config);
  const Tensor prompts = random_tokens(2, 3);
  model->train();
  const auto frozen = model->named_modules()["transformer.blocks.1"];
  frozen->eval();
  const Tensor found = generate(*model, prompts, 20, at_temperature(1.0));
  EXPECT_TRUE(model->is_training());
  EXPECT_TRUE(model->named_modules()["transformer.blocks.0.mixer"]->is_training());
  EXPECT_FALSE(frozen->is_training());
  EXPECT_FALSE(model->named_modules()["transformer.blocks.1.mixer"]->is_training());
  model->eval();
  EXPECT_TRUE(at::equal(generate(*model, prompts, 20, at_temperature(1.0)), found));
  EXPECT_FALSE(model->is_training());
}

TEST(Generate, RestoresTheModeWhenTheCallerThrows) {
  const auto model = decided_model(causal_config());
  const auto stop = [](const Tensor&) -> bool { throw std::runtime_error("stop"); };
  EXPECT_THROW(generate(*model, random_tokens(1, 1), 3, at_temperature(1.0), stop),
               std::runtime_error);
  EXPECT_TRUE(model->is_training());
}

TEST(Generate, RecordsNoGradient) {
  const auto model = decided_model(causal_config());
  bool recorded = true;
  generate(*model, random_tokens(1, 2), 1, at_temperature(1.0), [&](const Tensor&) {
    recorded = at::GradMode::is_enabled();
    return true;
  });
  EXPECT_FALSE(recorded);
  EXPECT_TRUE(at::GradMode::is_enabled());
}

TEST(Generate, ShowsEachColumnAndStopsWhenTold) {
  const auto model = decided_model(causal_config());
  const Tensor prompts = random_tokens(2, 3);
  const Tensor whole = generate(*model, prompts, 10, at_temperature(1.0));
  std::vector<Tensor> seen;
  const Tensor found = generate(*model, prompts, 10, at_temperature(1.0), [&](const Tensor& next) {
    seen.push_back(next);
    return seen.size() < 4;
  });
  EXPECT_TRUE(at::equal(found, whole.narrow(1, 0, 7)));
  ASSERT_EQ(seen.size(), 4u);
  EXPECT_TRUE(at::equal(at::stack(seen, 1), whole.narrow(1, 3, 4)));
}

TEST(Generate, NothingToDoIsNoError) {
  const auto model = decided_model(causal_config());
  const Tensor prompts = random_tokens(2, 3);
  EXPECT_TRUE(at::equal(generate(*model, prompts, 0, at_temperature(1.0)), prompts));
  EXPECT_EQ(generate(*model, random_tokens(0, 3), 4, at_temperature(1.0)).sizes(),
            (std::vector<int64_t>{0, 7}));
}

TEST(Generate, RefusesWhatItCannotContinue) {
  const auto model = decided_model(causal_config());
  const auto refusal_of = [&](const Tensor& prompts, int64_t length) {
    return refusal([&] { generate(*model, prompts, length, at_temperature(1.0)); });
  };
  EXPECT_EQ(refusal_of(at::zeros({2, 0}, at::kLong), 3),
            "generate: expected prompts of shape [B, T], T at least 1, and dtype int64; found "
            "shape [2, 0], Long. Start from at least one token, for example a line end.");
  EXPECT_THAT(refusal_of(at::zeros({2}, at::kLong), 3), HasSubstr("found shape [2]"));
  EXPECT_THAT(refusal_of(at::zeros({2, 1}), 3), HasSubstr("Float"));
  EXPECT_THAT(refusal_of(random_tokens(1, 1), -1), HasSubstr("length = -1"));
  EXPECT_THAT(refusal([&] { generate(*model, random_tokens(1, 1), 3, at_temperature(-1.0)); }),
              HasSubstr("temperature = -1"));
}

// The rule in its plainest form: after every token that fills the model, start anew from the newest
// half.
TEST(Generate, GoesOnFromTheNewestHalfBeyondMaxLength) {
  const auto model = decided_model(causal_config());
  const int64_t limit = model->config().max_length;
  for (const int64_t prompt : {int64_t{3}, limit, limit + 5}) {
    const Tensor prompts = random_tokens(2, prompt);
    const Tensor found = generate(*model, prompts, 2 * limit, at_temperature(0.0));
    ASSERT_EQ(found.size(1), prompt + 2 * limit);
    Tensor window = prompt > limit ? prompts.narrow(1, prompt - limit / 2, limit / 2) : prompts;
    for (int64_t i = 0; i < 2 * limit; ++i) {
      if (window.size(1) > limit) window = window.narrow(1, window.size(1) - limit / 2, limit / 2);
      const at::NoGradGuard no_grad;
      const Tensor next = model->forward(window).select(1, -1).argmax(-1);  // [B]
      ASSERT_TRUE(at::equal(found.select(1, prompt + i), next)) << "prompt " << prompt << ", " << i;
      window = at::cat({window, next.unsqueeze(1)}, 1);
    }
  }
}

TEST(Generate, RefusesABidirectionalModel) {
  LanguageModel model(small_config());
  EXPECT_THAT(refusal([&] { generate(model, random_tokens(1, 2), 3, at_temperature(1.0)); }),
              HasSubstr("a causal model to decode with"));
}

}  // namespace
}  // namespace headloom::nn

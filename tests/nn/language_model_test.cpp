// B batch, T tokens, C model width, V vocabulary.
#include <torch/nn/functional/loss.h>
#include <torch/optim.h>

#include <cmath>

#include "headloom/nn/generate.h"
#include "tests/nn/nn_support.h"

namespace headloom::nn {
namespace {

using at::Tensor;
using ::testing::HasSubstr;

bool has_parameter(const LanguageModel& model, const std::string& name) {
  return model.named_parameters().contains(name);
}

TEST(LanguageModel, TiedOutputIsTheEmbedding) {
  LanguageModel model(causal_config());
  EXPECT_FALSE(has_parameter(model, "output.weight"));
  EXPECT_TRUE(has_parameter(model, "transformer.embedding.weight"));
  const Tensor tokens = random_tokens(2, 5), logits = model.forward(tokens);
  ASSERT_EQ(logits.sizes(), (std::vector<int64_t>{2, 5, 11}));
  const Tensor embedding = model.named_parameters()["transformer.embedding.weight"];
  {
    const torch::NoGradGuard no_grad;
    embedding[3].zero_();  // not among the tokens below: only the output sees the change
  }
  const Tensor without = at::where(tokens == 3, at::zeros_like(tokens), tokens);
  EXPECT_EQ(model.forward(without).select(2, 3).abs().max().item<double>(), 0.0);
  EXPECT_GT(model.forward(without).select(2, 4).abs().max().item<double>(), 0.0);
}

TEST(LanguageModel, UntiedOutputHasItsOwnWeights) {
  LanguageModel model(causal_config(), /*tie_embedding=*/false);
  ASSERT_TRUE(has_parameter(model, "output.weight"));
  EXPECT_FALSE(has_parameter(model, "output.bias"));
  const Tensor weight = model.named_parameters()["output.weight"];
  EXPECT_EQ(weight.sizes(), (std::vector<int64_t>{11, 16}));
  {
    const torch::NoGradGuard no_grad;
    weight[3].zero_();
  }
  EXPECT_EQ(model.forward(random_tokens(2, 5)).select(2, 3).abs().max().item<double>(), 0.0);
}

TEST(LanguageModel, StartsNearTheUniformDistribution) {
  for (const bool tie : {true, false}) {
    LanguageModel model(causal_config(), tie);
    const Tensor tokens = random_tokens(8, 32);
    const double loss =
        torch::nn::functional::cross_entropy(model.forward(tokens).reshape({-1, 11}),
                                             random_tokens(8, 32).reshape({-1}))
            .item<double>();
    EXPECT_NEAR(loss, std::log(11.0), 0.05);
  }
}

TEST(LanguageModel, StepsEqualTheWhole) {
  const TransformerConfig config = causal_config();
  for (const bool tie : {true, false}) {
    LanguageModel model(config, tie);
    model.to(at::kDouble);
    const Tensor tokens = random_tokens(2, 12), expected = model.forward(tokens);
    DecoderState state = model.new_state(2);
    expect_close(model.step(tokens.narrow(1, 0, 5), state), expected.narrow(1, 0, 5), config);
    expect_close(model.next_logits(tokens.narrow(1, 5, 4), state), expected.select(1, 8), config);
    expect_close(model.step(tokens.narrow(1, 9, 3), state), expected.narrow(1, 9, 3), config);
  }
}

TEST(LanguageModel, NextLogitsNeedAToken) {
  LanguageModel model(causal_config());
  DecoderState state = model.new_state(2);
  EXPECT_THAT(refusal([&] { model.next_logits(random_tokens(2, 0), state); }),
              HasSubstr("n at least 1; found shape [2, 0]"));
}

TEST(LanguageModel, CountsOperations) {
  LanguageModel model(causal_config());
  const double blocks = Transformer(causal_config()).flops(10);
  EXPECT_EQ(model.flops(10), blocks + 2.0 * 10 * 16 * 11);
}

TEST(LanguageModel, LearnsAPatternAndContinuesIt) {
  torch::manual_seed(5);
  TransformerConfig config = causal_config();
  config.dropout = 0.05;
  LanguageModel model(config);
  const std::vector<int64_t> pattern{3, 1, 4, 1, 5, 9, 2, 6};  // 1 has two successors
  std::vector<int64_t> text;
  for (int64_t i = 0; i < 33; ++i) text.push_back(pattern[i % 8]);
  const Tensor all = at::tensor(text, at::kLong).unsqueeze(0);
  const Tensor input = all.narrow(1, 0, 32), target = all.narrow(1, 1, 32).reshape({-1});
  torch::optim::Adam optimizer(model.parameters(), torch::optim::AdamOptions(0.01));
  double first = 0.0, last = 0.0;
  for (int step = 0; step < 300 && (step == 0 || last > 0.05); ++step) {
    optimizer.zero_grad();
    const Tensor loss = torch::nn::functional::cross_entropy(
        model.forward(input).reshape({-1, config.vocabulary}), target);
    loss.backward();
    optimizer.step();
    last = loss.item<double>();
    if (step == 0) first = last;
  }
  EXPECT_GT(first, 2.0);
  EXPECT_LT(last, 0.05);
  SamplingOptions greedy;
  greedy.temperature = 0.0;
  EXPECT_TRUE(at::equal(generate(model, all.narrow(1, 0, 4), 28, greedy), all.narrow(1, 0, 32)));
}

}  // namespace
}  // namespace headloom::nn

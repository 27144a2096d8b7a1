#include "headloom/tasks/sequence_classifier.h"

#include <torch/torch.h>

#include "headloom/tasks/listops/listops_task.h"
#include "tests/tasks/support.h"

namespace headloom::tasks::listops {
namespace {

using ::testing::HasSubstr;

nn::TransformerConfig small_config() {
  nn::TransformerConfig config;
  config.dim = 16;
  config.layers = 2;
  config.heads = 2;
  config.ffn = 24;
  config.max_length = 64;
  return config;
}

int64_t count_parameters(const Model& model) {
  int64_t total = 0;
  for (const at::Tensor& parameter : model.parameters()) total += parameter.numel();
  return total;
}

Batch some_batch() {
  return make_batch({parse("[MAX 1 2 ]", "a"), parse("[SM 4 [MIN 3 2 ] 9 ]", "b"), parse("7", "c")},
                    {0, 1, 2});
}

class ListOpsPooling : public ::testing::TestWithParam<Pooling> {};

TEST_P(ListOpsPooling, GivesLogitsAndGradients) {
  SequenceClassifier model(small_config(), kVocabulary, kValues, GetParam());
  const at::Tensor logits = model.forward(some_batch());
  EXPECT_EQ(logits.sizes(), (at::IntArrayRef{3, 10}));
  EXPECT_TRUE(logits.isfinite().all().item<bool>());
  logits.pow(2).sum().backward();
  for (const auto& parameter : model.named_parameters()) {
    EXPECT_TRUE(parameter.value().grad().defined()) << parameter.key();
  }
}

// Padding must not show: each row alone gives what it gives in the padded batch.
TEST_P(ListOpsPooling, IgnoresPadding) {
  SequenceClassifier model(small_config(), kVocabulary, kValues, GetParam());
  model.eval();
  const torch::NoGradGuard no_grad;
  const Batch batch = some_batch();
  const at::Tensor together = model.forward(batch);
  const at::Tensor lengths = batch.masks.key_padding_mask.logical_not().sum(1);
  for (int64_t row = 0; row < 3; ++row) {
    Batch alone;
    alone.tokens = batch.tokens[row].slice(0, 0, lengths[row].item<int64_t>()).unsqueeze(0);
    const double difference = (model.forward(alone)[0] - together[row]).abs().max().item<double>();
    const double scale = together[row].abs().max().item<double>();
    EXPECT_LT(difference, 64 * std::numeric_limits<float>::epsilon() * scale);
  }
}

INSTANTIATE_TEST_SUITE_P(Poolings, ListOpsPooling,
                         ::testing::Values(Pooling::kClass, Pooling::kMean), [](const auto& info) {
                           return info.param == Pooling::kClass ? "Class" : "Mean";
                         });

TEST(ListOpsModel, StartsWithAZeroClassVector) {
  SequenceClassifier model(small_config(), kVocabulary, kValues, Pooling::kClass);
  const at::Tensor weight = model.named_parameters()["encoder.embedding.weight"];
  ASSERT_EQ(weight.size(0), kVocabulary + 1);
  EXPECT_EQ(weight[kClass].abs().max().item<double>(), 0.0);
  EXPECT_GT(weight[kClose].abs().max().item<double>(), 0.0);
}

// The published base model, whose attention has no biases.
TEST(ListOpsModel, HasThePublishedParameterTotal) {
  nn::TransformerConfig config;
  config.dim = 512;
  config.layers = 4;
  config.heads = 8;
  config.ffn = 1024;
  config.positions = "sinusoidal";
  config.max_length = 2001;
  config.mixer_options = {{"bias", false}};
  const auto model = make_task("listops", {}, {})->make_model(config);
  EXPECT_EQ(count_parameters(*model), 8'948'746);
}

TEST(ListOpsModel, CountsOperationsOfEncoderAndHead) {
  const nn::TransformerConfig config = small_config();
  SequenceClassifier with_class(config, kVocabulary, kValues, Pooling::kClass),
      with_mean(config, kVocabulary, kValues, Pooling::kMean);
  nn::TransformerConfig encoder = config;
  encoder.vocabulary = kVocabulary;
  const nn::Transformer transformer(encoder);
  const double head = 2.0 * 24 * (16 + 10);
  EXPECT_DOUBLE_EQ(with_mean.flops(20), transformer.flops(20) + head);
  EXPECT_DOUBLE_EQ(with_class.flops(20), transformer.flops(21) + head);
}

TEST(ListOpsModel, RefusesAMaximumBelowTheLongestExpression) {
  nn::TransformerConfig config = small_config();
  config.max_length = 1999;
  EXPECT_THAT(message_of([&] { make_task("listops", {}, {})->make_model(config); }),
              HasSubstr("model.max_length of at least 2000 for expressions of up to 1999 tokens "
                        "and the vector in front; found 1999"));
  EXPECT_NO_THROW(make_task("listops", {}, {{"pooling", std::string("mean")}})->make_model(config));
}

}  // namespace
}  // namespace headloom::tasks::listops

#include "headloom/tasks/language_model/language_model_task.h"

#include <torch/torch.h>

#include <cmath>
#include <numeric>
#include <set>

#include "tests/tasks/support.h"

namespace headloom::tasks::language_model {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// 200 bytes, all different from their neighbours, so that a position shows in its byte.
std::string some_text(int64_t size = 200) {
  std::string text(size, '\0');
  std::iota(text.begin(), text.end(), '\0');
  return text;
}

class LanguageModelData : public ::testing::Test {
 protected:
  std::unique_ptr<Task> make(const std::string& text, Options options = {}, uint64_t seed = 1) {
    folder_.write("text", text);
    options.emplace("path", std::string("text"));
    options.emplace("context", int64_t{8});
    TaskConfig config;
    config.batch_size = 3;
    config.seed = seed;
    config.base_folder = folder_.path().string();
    return make_task("language_model", config, options);
  }

  TempFolder folder_;
};

TEST_F(LanguageModelData, TrainsOnWindowsOfTheFirstPart) {
  const auto task = make(some_text());  // 180 bytes to train on
  std::set<int64_t> starts;
  for (int64_t i = 0; i < 1'000; ++i) {
    const Batch batch = task->train_batch(i);
    ASSERT_EQ(batch.tokens.sizes(), (at::IntArrayRef{3, 8}));
    EXPECT_EQ(batch.token_count, 24);
    EXPECT_TRUE(at::equal(batch.targets, batch.tokens + 1));
    for (int64_t row = 0; row < 3; ++row) starts.insert(batch.tokens[row][0].item<int64_t>());
  }
  // Every start that leaves a target for the last input: 0 .. 171.
  EXPECT_EQ(starts.size(), 172u);
  EXPECT_EQ(*starts.rbegin(), 171);
}

TEST_F(LanguageModelData, BatchesArePureFunctionsOfSeedAndIndex) {
  const auto one = make(some_text()), two = make(some_text()), other = make(some_text(), {}, 2);
  const at::Tensor first = one->train_batch(0).tokens, second = one->train_batch(1).tokens;
  EXPECT_TRUE(at::equal(two->train_batch(1).tokens, second));
  EXPECT_TRUE(at::equal(two->train_batch(0).tokens, first));
  EXPECT_FALSE(at::equal(first, second));
  EXPECT_FALSE(at::equal(other->train_batch(0).tokens, first));
}

struct Split {
  const char* name;
  int64_t text, context, limit, expected;
};

class LanguageModelValidation : public LanguageModelData,
                                public ::testing::WithParamInterface<Split> {};

TEST_P(LanguageModelValidation, PredictsEveryByteOnce) {
  const Split& split = GetParam();
  const auto task =
      make(some_text(split.text), {{"context", split.context}, {"validation_limit", split.limit}});
  const int64_t train = split.text * 9 / 10;
  std::vector<int64_t> predicted;
  for (int64_t i = 0; i < task->validation_batches(); ++i) {
    const Batch batch = task->validation_batch(i);
    EXPECT_EQ(batch.token_count, batch.tokens.numel());
    EXPECT_TRUE(at::equal(batch.targets, batch.tokens + 1));
    for (int64_t row = 0; row < batch.targets.size(0); ++row) {
      for (int64_t t = 0; t < batch.targets.size(1); ++t) {
        predicted.push_back(batch.targets[row][t].item<int64_t>());
      }
    }
  }
  std::vector<int64_t> expected(split.expected);
  std::iota(expected.begin(), expected.end(), train);
  EXPECT_EQ(predicted, expected);
  EXPECT_THAT(message_of([&] { task->validation_batch(task->validation_batches()); }),
              HasSubstr("expected a validation batch below"));
}

INSTANTIATE_TEST_SUITE_P(
    Splits, LanguageModelValidation,
    ::testing::Values(Split{"WholeWindows", 240, 8, 0, 24}, Split{"ShortLastWindow", 250, 8, 0, 25},
                      Split{"SeveralBatches", 250, 2, 0, 25}, Split{"ContextOfOne", 200, 1, 0, 20},
                      Split{"Limited", 250, 8, 11, 11}, Split{"LimitedBelowAWindow", 250, 8, 5, 5},
                      Split{"LimitBeyondTheEnd", 250, 8, 99, 25}),
    [](const auto& info) { return info.param.name; });

TEST_F(LanguageModelData, CountsNatsBitsAndPerplexity) {
  const auto task = make(some_text());
  const Batch batch = task->validation_batch(0);
  at::Tensor logits = at::zeros({batch.targets.size(0), 8, 256}).set_requires_grad(true);
  const Loss loss = task->loss(logits, batch);
  const double bytes = static_cast<double>(batch.targets.numel());
  EXPECT_EQ(loss.weight, bytes);
  EXPECT_NEAR(loss.sum.item<double>() / bytes, std::log(256.0), 1e-5);
  loss.sum.backward();
  EXPECT_TRUE(logits.grad().isfinite().all().item<bool>());

  Totals totals;
  task->measure(logits, batch, totals);
  task->measure(logits, task->validation_batch(0), totals);
  const Metrics metrics = task->metrics(totals);
  ASSERT_EQ(metrics.size(), 3u);
  EXPECT_EQ(metrics[0].first, task->main_metric().name);
  EXPECT_FALSE(task->main_metric().higher_is_better);
  EXPECT_NEAR(metrics[0].second, std::log(256.0), 1e-5);
  EXPECT_NEAR(metrics[1].second, 8.0, 1e-5);
  EXPECT_NEAR(metrics[2].second, 256.0, 1e-2);
}

TEST_F(LanguageModelData, RefusesTextsThatAreTooShort) {
  const auto message = [&](const std::string& text, const Options& options = {}) {
    return message_of([&] { make(text, options)->train_batch(0); });
  };
  EXPECT_THAT(message(""), AllOf(HasSubstr("text: expected at least context + 1 = 9 bytes"),
                                 HasSubstr("found 0 and 0 of 0 bytes")));
  EXPECT_THAT(message("a"), HasSubstr("found 0 and 1 of 1 bytes"));
  EXPECT_THAT(message(some_text(80)), HasSubstr("found 72 and 8 of 80 bytes"));
  EXPECT_THAT(message(some_text(80), {{"train_fraction", 0.1}}),
              HasSubstr("found 8 and 72 of 80 bytes"));
  EXPECT_NO_THROW(make(some_text(90))->train_batch(0));
}

TEST_F(LanguageModelData, RefusesImpossibleOptions) {
  const auto message = [&](const std::string& key, const OptionValue& value) {
    return message_of([&] { make("", {{key, value}}); });
  };
  EXPECT_THAT(message("path", std::string()), HasSubstr("expected path"));
  EXPECT_THAT(message("context", int64_t{0}), HasSubstr("context of at least 1; found 0"));
  EXPECT_THAT(message("train_fraction", 1.0), HasSubstr("train_fraction between 0 and 1"));
  EXPECT_THAT(message("train_fraction", int64_t{0}), HasSubstr("found 0"));
  EXPECT_THAT(message("validation_limit", int64_t{-1}), HasSubstr("validation_limit of at least"));
}

nn::TransformerConfig small_config() {
  nn::TransformerConfig config;
  config.dim = 16;
  config.layers = 1;
  config.heads = 2;
  config.ffn = 24;
  config.max_length = 64;
  return config;
}

// A model loads and writes when the text it was trained on is gone.
TEST(LanguageModelTask, NeedsNoTextToGenerate) {
  const auto task = make_task("language_model", {}, {{"path", std::string("/gone/text")}});
  const auto model = task->make_model(small_config());
  auto& generator = dynamic_cast<TextGenerator&>(*task);
  nn::LanguageModel& network = generator.language_model(*model);
  EXPECT_TRUE(network.config().causal);
  EXPECT_EQ(network.config().vocabulary, 256);
  EXPECT_EQ(task->typical_length(), 64);
  EXPECT_THAT(message_of([&] { task->train_batch(0); }), HasSubstr("/gone/text"));
}

TEST(LanguageModelTask, KeepsEveryByte) {
  const auto task = make_task("language_model", {}, {{"path", std::string("text")}});
  const auto& generator = dynamic_cast<const TextGenerator&>(*task);
  const std::string bytes("\0a\x80\xff\xc3\xa9\n", 7);
  EXPECT_EQ(generator.encode(bytes), (std::vector<int64_t>{0, 97, 128, 255, 195, 169, 10}));
  EXPECT_EQ(generator.decode(generator.encode(bytes)), bytes);
  EXPECT_THAT(message_of([&] {
                generator.decode({97, 256});
              }),
              HasSubstr("expected tokens 0 to 255; found 256"));
  EXPECT_THAT(message_of([&] { generator.decode({-1}); }), HasSubstr("found -1"));
}

TEST(LanguageModelTask, SeesNoLaterByte) {
  const auto task = make_task("language_model", {}, {{"path", std::string("text")}});
  const auto model = task->make_model(small_config());
  model->eval();
  const torch::NoGradGuard no_grad;
  Batch batch;
  batch.tokens = at::randint(256, {2, 12}, at::kLong);
  const at::Tensor before = model->forward(batch);
  EXPECT_EQ(before.sizes(), (at::IntArrayRef{2, 12, 256}));
  batch.tokens.slice(1, 7) = (batch.tokens.slice(1, 7) + 1) % 256;
  const at::Tensor after = model->forward(batch);
  EXPECT_TRUE(at::equal(after.slice(1, 0, 7), before.slice(1, 0, 7)));
  EXPECT_FALSE(at::equal(after.slice(1, 7), before.slice(1, 7)));
}

TEST(LanguageModelTask, TiesTheEmbeddingWhenAsked) {
  const auto count = [](bool tie) {
    const Options options = {{"path", std::string("text")}, {"tie_embedding", tie}};
    const auto model = make_task("language_model", {}, options)->make_model(small_config());
    int64_t total = 0;
    for (const at::Tensor& parameter : model->parameters()) total += parameter.numel();
    return total;
  };
  EXPECT_EQ(count(false) - count(true), 256 * 16);
}

TEST(LanguageModelTask, RefusesModelsThatDoNotFit) {
  const auto task =
      make_task("language_model", {}, {{"path", std::string("text")}, {"context", int64_t{65}}});
  EXPECT_THAT(message_of([&] { task->make_model(small_config()); }),
              HasSubstr("model.max_length of at least the context, 65; found 64"));
  const auto listops = make_task("listops", {}, {{"max_length", int64_t{600}}});
  nn::TransformerConfig config = small_config();
  config.max_length = 601;
  const auto foreign = listops->make_model(config);
  EXPECT_THAT(message_of([&] { dynamic_cast<TextGenerator&>(*task).language_model(*foreign); }),
              HasSubstr("expected a model that this task made; found another"));
}

}  // namespace
}  // namespace headloom::tasks::language_model

#include "headloom/tasks/classification/classification_task.h"

#include <torch/torch.h>

#include "tests/support/closeness.h"
#include "tests/tasks/text_tasks.h"

namespace headloom::tasks::classification {
namespace {

using ::testing::HasSubstr;

nn::TransformerConfig small_model() {
  return small_transformer(32);
}

class Classification : public GlueTest {
 protected:
  Classification() : GlueTest("classification") {}
};

constexpr int64_t kPad = 0, kBegin = 2, kEnd = 3;

TEST_F(Classification, FramesAndPadsSentences) {
  const auto task = make({{"bucket_batches", int64_t{1}}});
  const Batch batch = task->train_batch(0);
  EXPECT_TRUE((batch.tokens.select(1, 0) == kBegin).all().item<bool>());
  EXPECT_TRUE(at::equal((batch.tokens == kEnd).sum(1), at::ones({8}, at::kLong)));
  ASSERT_TRUE(batch.masks.key_padding_mask.defined());
  EXPECT_TRUE(at::equal(batch.masks.key_padding_mask, batch.tokens == kPad));
  EXPECT_EQ(batch.token_count, (batch.tokens != kPad).sum().item<int64_t>());
}

TEST_F(Classification, FramesPairs) {
  const auto task = make_pairs();
  const Batch batch = task->validation_batch(0);
  EXPECT_TRUE(at::equal((batch.tokens == kEnd).sum(1), at::full({8}, int64_t{2}, at::kLong)));
}

TEST_F(Classification, CutsTheLongerSentenceOfAPair) {
  const Batch whole = make_pairs()->validation_batch(0);
  const Batch cut = make_pairs({{"max_length", int64_t{12}}})->validation_batch(0);
  EXPECT_EQ(cut.tokens.size(1), 12);
  EXPECT_TRUE(at::equal((cut.tokens == kEnd).sum(1), at::full({8}, int64_t{2}, at::kLong)));
  // The second sentence is the shorter one and stays whole; the last token is the end.
  const auto second = [](const Batch& batch) {
    const at::Tensor row = batch.tokens[0].masked_select(batch.tokens[0] != kPad);
    const at::Tensor ends = (row == kEnd).nonzero().flatten();
    return row.slice(0, ends[0].item<int64_t>());
  };
  EXPECT_TRUE(at::equal(second(cut), second(whole)));
}

TEST_F(Classification, BatchesArePureFunctionsOfSeedAndIndex) {
  expect_pure_batches();
}

TEST_F(Classification, ValidatesEveryRowOnce) {
  expect_every_validation_row_once();
}

TEST_F(Classification, ModelsOfEveryMechanismClassify) {
  const auto task = make({{"bucket_batches", int64_t{1}}});
  const Batch batch = task->train_batch(0);
  for_models(*task, 32, [&](const std::string& mechanism, Model& model) {
    const Loss loss = task->loss(model.forward(batch), batch);
    EXPECT_EQ(loss.weight, 8.0);
    EXPECT_TRUE(loss.sum.isfinite().item<bool>()) << mechanism;
  });
}

TEST_F(Classification, PaddingDoesNotChangeTheLogits) {
  for (const char* pooling : {"cls", "mean"}) {
    torch::manual_seed(1);
    const auto task = make({{"pooling", std::string(pooling)}, {"bucket_batches", int64_t{1}}});
    const auto model = task->make_model(small_model());
    model->eval();
    const Batch batch = task->train_batch(0);
    const at::Tensor together = model->forward(batch);
    for (int64_t row = 0; row < 8; ++row) {
      Batch alone;
      alone.tokens = batch.tokens[row].masked_select(batch.tokens[row] != kPad).unsqueeze(0);
      EXPECT_EQ(headloom::testing::differs_by_more_than_rounding(
                    together[row], model->forward(alone)[0].to(at::kDouble)),
                std::nullopt)
          << pooling;
    }
  }
}

TEST_F(Classification, LearnsSomething) {
  torch::manual_seed(1);
  const auto task = make();
  const auto model = task->make_model(small_model());
  learn(*task, *model, 60);
  const Metrics metrics = measured(*task, *model);
  EXPECT_EQ(metrics[1], (std::pair<std::string, double>("accuracy", 1.0)));
  EXPECT_EQ(metrics[2], (std::pair<std::string, double>("f1", 1.0)));
  EXPECT_EQ(metrics[3], (std::pair<std::string, double>("matthews", 1.0)));
}

double value_of(const Metrics& metrics, const std::string& name) {
  for (const auto& [key, value] : metrics) {
    if (key == name) return value;
  }
  ADD_FAILURE() << "no " << name;
  return 0.0;
}

TEST_F(Classification, MeasuresCalibration) {
  const auto task = make();
  const Batch batch = task->validation_batch(0);
  Totals totals;
  const at::Tensor p = at::full({8}, 0.75, at::kDouble);
  task->measure(at::stack({1 - p, p}, 1).log(), batch, totals);
  const double accuracy = value_of(task->metrics(totals), "accuracy");
  EXPECT_NEAR(value_of(task->metrics(totals), "ece"), 100 * std::abs(accuracy - 0.75), 1e-9);
}

TEST_F(Classification, MeasuresUncertaintyWithDropout) {
  torch::manual_seed(1);
  const auto task = make({{"samples", int64_t{5}}});
  nn::TransformerConfig config = small_model();
  config.dropout = 0.3;
  const auto model = task->make_model(config);
  model->eval();
  const at::NoGradGuard off;
  const auto go_on = [] { return false; };
  const auto closing = task->closing_metrics(*model, go_on);
  ASSERT_TRUE(closing);
  EXPECT_FALSE(model->is_training());
  for (const char* name : {"pavpu", "pavpu_welch"}) {
    EXPECT_GE(value_of(*closing, name), 0.0);
    EXPECT_LE(value_of(*closing, name), 1.0);
  }
  const double entropy = value_of(*closing, "predictive_entropy");
  EXPECT_GT(entropy, 0.0);
  EXPECT_LE(entropy, std::log(2.0));
  EXPECT_GT(value_of(*closing, "mutual_information"), 0.0) << "passes differ";
  EXPECT_EQ(*task->closing_metrics(*model, go_on), *closing) << "draws depend on the seed alone";
  EXPECT_EQ(task->closing_metrics(*model, [] { return true; }), std::nullopt);
  EXPECT_TRUE(make({{"samples", int64_t{0}}})->closing_metrics(*model, go_on)->empty());

  // Without dropout every prediction is certain.
  const auto still = task->make_model(small_model());
  const Metrics metrics = measured(*task, *still);
  const auto certain = task->closing_metrics(*still, go_on);
  EXPECT_NEAR(value_of(*certain, "pavpu"), value_of(metrics, "accuracy"), 1e-12);
  EXPECT_NEAR(value_of(*certain, "mutual_information"), 0.0, 1e-12);
}

TEST_F(Classification, ComparesByTheMetricOfTheRecipe) {
  EXPECT_EQ(make()->main_metric().name, "accuracy");
  EXPECT_EQ(make({{"metric", std::string("matthews")}})->main_metric().name, "matthews");
}

TEST_F(Classification, RefusesWhatCannotBe) {
  const auto refusal = [&](Options options) {
    return message_of([&] { make(std::move(options))->train_batch(0); });
  };
  EXPECT_THAT(refusal({{"train_file", std::string()}}),
              HasSubstr("expected train_file; found none"));
  EXPECT_THAT(refusal({{"validation_file", std::string()}}), HasSubstr("expected validation_file"));
  EXPECT_THAT(refusal({{"format", std::string("sst")}}), HasSubstr("sst2"));
  EXPECT_THAT(refusal({{"max_length", int64_t{7}}}),
              HasSubstr("max_length of at least 8; found 7"));
  EXPECT_THAT(refusal({{"bucket_batches", int64_t{0}}}), HasSubstr("bucket_batches of at least 1"));
  EXPECT_THAT(refusal({{"samples", int64_t{1}}}), HasSubstr("at least 2"));
  EXPECT_THAT(refusal({{"metric", std::string("f2")}}), HasSubstr("f1"));
  EXPECT_THAT(message_of([&] {
                make({{"max_length", int64_t{64}}})->make_model(small_model());
              }),
              HasSubstr("model.max_length of at least task.max_length, 64; found 32"));
  folder_.write("plain.json",
                R"({"model": {"type": "BPE", "merges": [], "vocab": {"<s>": 0, "<pad>": 1}}})");
  EXPECT_THAT(refusal({{"tokenizer", std::string("plain.json")}}),
              HasSubstr("whose post_processor puts its begin token first; found another"));
}

}  // namespace
}  // namespace headloom::tasks::classification

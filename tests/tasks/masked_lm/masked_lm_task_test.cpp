#include "headloom/tasks/masked_lm/masked_lm_task.h"

#include <torch/torch.h>

#include <cmath>

#include "headloom/tasks/files.h"
#include "headloom/tasks/masked_lm/masked_lm_model.h"
#include "tests/support/closeness.h"
#include "tests/tasks/text_tasks.h"

namespace headloom::tasks::masked_lm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

nn::TransformerConfig small_model() {
  return small_transformer(16);
}

class MaskedLm : public CorpusTest {
 protected:
  MaskedLm() : CorpusTest("masked_lm", {{"context", int64_t{16}}, {"vocabulary", int64_t{120}}}) {}
};

TEST_F(MaskedLm, BatchesHoldMaskedSequences) {
  const auto task = make();
  const Batch batch = task->train_batch(0);
  EXPECT_EQ(batch.tokens.sizes(), (at::IntArrayRef{4, 16}));
  EXPECT_EQ(batch.token_count, 64);
  const int64_t begin = 2, mask = 4;  // of [PAD] [UNK] [CLS] [SEP] [MASK]
  EXPECT_TRUE((batch.tokens.select(1, 0) == begin).all().item<bool>());
  EXPECT_TRUE((batch.tokens == mask).any().item<bool>());
  EXPECT_TRUE((batch.targets != kNotPredicted).any(1).all().item<bool>());
  const at::Tensor kept = batch.targets == kNotPredicted;
  EXPECT_FALSE((batch.tokens.masked_select(kept) == mask).any().item<bool>());
}

TEST_F(MaskedLm, MasksAnewInTrainingAndNeverInValidation) {
  expect_pure_batches();
}

TEST_F(MaskedLm, ValidationDoesNotDependOnTheBatchSize) {
  expect_validation_of_any_batch_size();
}

TEST_F(MaskedLm, ReadsItsValidationFromAFile) {
  folder_.write("validation", "the weaver of row 1 counts 2 threads\nthe weaver of row 1\n");
  const auto task = make({{"validation_path", std::string("validation")}});
  EXPECT_EQ(task->validation_batches(), 1);
  EXPECT_EQ(all_validation(*task, &Batch::tokens).size(0), 1);
}

TEST_F(MaskedLm, LearnsATokenizerOnceAndUsesItAgain) {
  const std::string name = "made/tokenizer.json";
  const auto first = make({{"tokenizer", name}});
  const at::Tensor tokens = first->train_batch(0).tokens;
  const std::string made = read_file(folder_.path() / name);
  EXPECT_TRUE(at::equal(make({{"tokenizer", name}})->train_batch(0).tokens, tokens));
  EXPECT_TRUE(at::equal(make()->train_batch(0).tokens, tokens)) << "the same, learned anew";
  folder_.write("text",
                read_file(folder_.path() / "text") + "quite other words\nquite other words\n");
  make({{"tokenizer", name}})->train_batch(0);
  EXPECT_EQ(read_file(folder_.path() / name), made);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_.path() / "made"), {}), 1);
}

TEST_F(MaskedLm, TakesByteLevelTokenizers) {
  const auto task =
      make({{"tokenizer_algorithm", std::string("bpe")}, {"vocabulary", int64_t{300}}});
  const Batch batch = task->train_batch(0);
  EXPECT_TRUE((batch.tokens.select(1, 0) == 0).all().item<bool>()) << "<s>";
  EXPECT_TRUE((batch.tokens == 4).any().item<bool>()) << "<mask>";
}

TEST_F(MaskedLm, ModelsPredictWhatIsMasked) {
  const auto task = make();
  const Batch batch = task->train_batch(0);
  for_models(*task, 16, [&](const std::string& mechanism, Model& model) {
    const at::Tensor logits = model.forward(batch);
    const int64_t chosen = (batch.targets != kNotPredicted).sum().item<int64_t>();
    EXPECT_EQ(logits.sizes(), (at::IntArrayRef{chosen, 120})) << mechanism;
    const Loss loss = task->loss(logits, batch);
    EXPECT_EQ(loss.weight, static_cast<double>(chosen));
    // At first, near the uniform distribution.
    EXPECT_NEAR(loss.sum.item<double>() / loss.weight, std::log(120.0), 0.5) << mechanism;
  });
}

TEST_F(MaskedLm, HeadSeesTheChosenPositionsOnly) {
  torch::manual_seed(1);
  MaskedLanguageModel model(
      [] {
        nn::TransformerConfig config = small_model();
        config.vocabulary = 120;
        return config;
      }(),
      /*tie_embedding=*/true, 0.15);
  model.eval();
  Batch batch = make()->train_batch(0);
  const at::Tensor chosen = model.forward(batch);
  const at::Tensor where = batch.targets != kNotPredicted;
  batch.targets = at::Tensor();
  const at::Tensor all = model.forward(batch);  // [B, T, V]
  EXPECT_EQ(
      headloom::testing::differs_by_more_than_rounding(chosen, all.index({where}).to(at::kDouble)),
      std::nullopt);
}

TEST_F(MaskedLm, MetricsFollowFromTheLogits) {
  const auto task = make();
  const Batch batch = task->validation_batch(0);
  const at::Tensor targets = batch.targets.masked_select(batch.targets != kNotPredicted);
  at::Tensor logits = at::zeros({targets.numel(), 120});
  logits.scatter_(1, targets.unsqueeze(1), 50.0);
  logits[0].zero_();
  logits[0][(targets[0].item<int64_t>() + 1) % 120] = 50.0;  // one wrong
  Totals totals;
  task->measure(logits, batch, totals);
  const auto count = static_cast<double>(targets.numel());
  const Metrics metrics = task->metrics(totals);
  EXPECT_EQ(metrics[1].first, "accuracy");
  EXPECT_DOUBLE_EQ(metrics[1].second, (count - 1) / count);
  EXPECT_NEAR(metrics[0].second, 50.0 / count, 1e-3);
  EXPECT_DOUBLE_EQ(metrics[2].second, std::exp(metrics[0].second));
}

TEST_F(MaskedLm, LearnsSomething) {
  torch::manual_seed(1);
  const auto task = make({}, 16);
  const auto model = task->make_model(small_model());
  const auto [first, last] = learn(*task, *model, 80);
  EXPECT_LT(last, 0.7 * first);
}

TEST_F(MaskedLm, RefusesWhatCannotBe) {
  const auto refusal = [&](Options options) {
    return message_of([&] { make(std::move(options))->train_batch(0); });
  };
  EXPECT_THAT(refusal({{"path", std::string()}}), HasSubstr("path, a text file or a folder"));
  EXPECT_THAT(refusal({{"context", int64_t{1}}}), HasSubstr("context of at least 2; found 1"));
  EXPECT_THAT(refusal({{"train_fraction", 1.0}}), HasSubstr("train_fraction between 0 and 1"));
  EXPECT_THAT(refusal({{"mask_probability", 0.0}}), HasSubstr("mask_probability above 0"));
  EXPECT_THAT(refusal({{"validation_limit", int64_t{-1}}}), HasSubstr("validation_limit of at le"));
  EXPECT_THAT(refusal({{"vocabulary", int64_t{0}}}), HasSubstr("vocabulary of at least 1"));
  EXPECT_THAT(refusal({{"vocabulary", int64_t{10}}}), HasSubstr("a size of at least"));
  EXPECT_THAT(refusal({{"context", int64_t{5000}}}), HasSubstr("at least 4999 tokens"));
  EXPECT_THAT(message_of([&] {
                make({{"context", int64_t{17}}})->make_model(small_model());
              }),
              HasSubstr("model.max_length of at least the context, 17; found 16"));
}

TEST_F(MaskedLm, RefusesATokenizerThatDoesNotFit) {
  make({{"tokenizer", std::string("made.json")}})->train_batch(0);
  EXPECT_THAT(message_of([&] {
                make({{"tokenizer", std::string("made.json")}, {"vocabulary", int64_t{20}}})
                    ->train_batch(0);
              }),
              AllOf(HasSubstr("vocabulary of at least"), HasSubstr("made.json; found 20")));
  folder_.write("plain.json",
                R"({"model": {"type": "BPE", "vocab": {"a": 0, "</s>": 1}, "merges": []}})");
  EXPECT_THAT(message_of([&] {
                make({{"tokenizer", std::string("plain.json")}})->train_batch(0);
              }),
              HasSubstr("a token for masking, [MASK] or <mask>; found none"));
}

}  // namespace
}  // namespace headloom::tasks::masked_lm

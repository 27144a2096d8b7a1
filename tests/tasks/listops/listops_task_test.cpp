#include "headloom/tasks/listops/listops_task.h"

#include <torch/torch.h>

#include <cmath>
#include <set>

#include "tests/tasks/support.h"

namespace headloom::tasks::listops {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

Options short_options() {
  return {{"min_length", int64_t{5}},       {"max_length", int64_t{30}},
          {"max_args", int64_t{4}},         {"train_size", int64_t{200}},
          {"validation_size", int64_t{50}}, {"test_size", int64_t{40}},
          {"pooling", std::string("mean")}};
}

std::unique_ptr<ListOpsTask> make(const Options& options, const TaskConfig& config = {}) {
  std::unique_ptr<Task> task = make_task("listops", config, options);
  return std::unique_ptr<ListOpsTask>(dynamic_cast<ListOpsTask*>(task.release()));
}

std::unique_ptr<ListOpsTask> make_short(const std::string& key = "pooling",
                                        const OptionValue& value = std::string("mean"),
                                        const TaskConfig& config = {}) {
  Options options = short_options();
  options[key] = value;
  return make(options, config);
}

std::set<Tokens> distinct(const Examples& examples) {
  std::set<Tokens> tokens;
  for (const Example& example : examples) tokens.insert(example.tokens);
  return tokens;
}

void expect_same(const Batch& a, const Batch& b) {
  EXPECT_TRUE(at::equal(a.tokens, b.tokens));
  EXPECT_TRUE(at::equal(a.targets, b.targets));
}

TEST(ListOpsTask, SplitsShareNoExpression) {
  const auto task = make_short(), tested = make_short("evaluate_on", std::string("test"));
  std::set<Tokens> all = distinct(task->training());
  EXPECT_EQ(all.size(), 200u);
  all.merge(distinct(task->evaluation()));
  all.merge(distinct(tested->evaluation()));
  EXPECT_EQ(all.size(), 290u);
}

TEST(ListOpsTask, EvaluationDependsOnTheDataSeedAlone) {
  TaskConfig other;
  other.seed = 9;
  const auto task = make_short();
  task->training();  // made first or last, the splits are the same
  const std::set<Tokens> expected = distinct(task->evaluation());
  EXPECT_EQ(distinct(make_short("train_size", int64_t{300})->evaluation()), expected);
  EXPECT_EQ(distinct(make_short("pooling", std::string("cls"), other)->evaluation()), expected);
  EXPECT_NE(distinct(make_short("data_seed", int64_t{2})->evaluation()), expected);
}

TEST(ListOpsTask, BatchesArePureFunctionsOfSeedAndIndex) {
  const auto one = make_short(), two = make_short();
  std::vector<Batch> batches;
  for (int64_t i = 0; i < 15; ++i) batches.push_back(one->train_batch(i));
  for (int64_t i = 14; i >= 0; --i) expect_same(two->train_batch(i), batches[i]);
  TaskConfig other;
  other.seed = 2;
  const Batch different = make_short("bucket_batches", int64_t{16}, other)->train_batch(0);
  EXPECT_FALSE(at::equal(different.targets, batches[0].targets));
}

TEST(ListOpsTask, PadsOnTheRightToTheLongestRow) {
  const auto task = make_short("bucket_batches", int64_t{1});
  const Batch batch = task->train_batch(0);
  ASSERT_EQ(batch.tokens.size(0), 32);
  const at::Tensor padding = batch.tokens == kPad;
  EXPECT_TRUE(at::equal(batch.masks.key_padding_mask, padding));
  EXPECT_EQ(batch.token_count, padding.logical_not().sum().item<int64_t>());
  EXPECT_FALSE(padding.select(1, 0).any().item<bool>());
  EXPECT_FALSE(padding.select(1, -1).all().item<bool>());
  for (int64_t row = 0; row < 32; ++row) {
    const at::Tensor kept = batch.tokens[row].masked_select(padding[row].logical_not());
    EXPECT_TRUE(at::equal(kept, batch.tokens[row].slice(0, 0, kept.size(0))));
    Tokens tokens;
    for (int64_t i = 0; i < kept.size(0); ++i) {
      tokens.push_back(static_cast<uint8_t>(kept[i].item<int64_t>()));
    }
    EXPECT_EQ(evaluate(tokens, "row"), batch.targets[row].item<int64_t>());
  }
}

TEST(ListOpsTask, LeavesOutTheMaskOfEquallyLongRows) {
  const Examples examples = {parse("[MAX 1 2 ]", "a"), parse("[MIN 3 2 ]", "b")};
  EXPECT_FALSE(make_batch(examples, {1, 0}).masks.key_padding_mask.defined());
}

TEST(ListOpsTask, ValidationVisitsEachExampleOnce) {
  const auto task = make_short();
  ASSERT_EQ(task->validation_batches(), 2);
  int64_t examples = 0, tokens = 0, expected = 0;
  for (int64_t i = 0; i < task->validation_batches(); ++i) {
    examples += task->validation_batch(i).targets.size(0);
    tokens += task->validation_batch(i).token_count;
  }
  for (const Example& example : task->evaluation()) {
    expected += static_cast<int64_t>(example.tokens.size());
  }
  EXPECT_EQ(examples, 50);
  EXPECT_EQ(tokens, expected);
  EXPECT_NEAR(static_cast<double>(task->typical_length()), expected / 50.0, 0.5);
}

TEST(ListOpsTask, CountsLossAndAccuracy) {
  const auto task = make_short();
  Batch batch;
  batch.targets = at::tensor({3, 7, 2}, at::kLong);
  at::Tensor logits = at::zeros({3, 10}).set_requires_grad(true);
  const Loss loss = task->loss(logits, batch);
  EXPECT_EQ(loss.weight, 3.0);
  EXPECT_NEAR(loss.sum.item<double>(), 3 * std::log(10.0), 1e-5);
  loss.sum.backward();
  EXPECT_NEAR(logits.grad()[0][3].item<double>(), -0.9, 1e-6);

  Totals totals;
  const at::Tensor guesses = at::one_hot(at::tensor({3, 7, 9}, at::kLong), 10).to(at::kFloat);
  task->measure(guesses, batch, totals);
  task->measure(guesses, batch, totals);
  const Metrics metrics = task->metrics(totals);
  ASSERT_EQ(metrics.size(), 2u);
  EXPECT_EQ(metrics[0].first, "loss");
  EXPECT_NEAR(metrics[0].second, std::log(std::exp(1.0) + 9) - 2.0 / 3, 1e-6);
  EXPECT_EQ(metrics[1].first, task->main_metric().name);
  EXPECT_DOUBLE_EQ(metrics[1].second, 2.0 / 3);
  EXPECT_TRUE(task->main_metric().higher_is_better);
}

TEST(ListOpsTask, ReadsFilesBesideTheRecipe) {
  const TempFolder folder;
  folder.write("train.tsv", "Source\tTarget\n[MAX 1 2 ]\t2\n[MIN 1 2 ]\t1\n");
  folder.write("val.tsv", "Source\tTarget\n7\t7\n");
  folder.write("test.tsv", "Source\tTarget\n8\t8\n");
  TaskConfig config;
  config.base_folder = folder.path().string();
  config.batch_size = 2;
  Options options = {{"train_file", std::string("train.tsv")},
                     {"validation_file", std::string("val.tsv")},
                     {"test_file", std::string("test.tsv")}};
  EXPECT_EQ(make(options, config)->train_batch(0).targets.sum().item<int64_t>(), 3);
  EXPECT_EQ(make(options, config)->validation_batch(0).targets.item<int64_t>(), 7);
  options["evaluate_on"] = std::string("test");
  EXPECT_EQ(make(options, config)->validation_batch(0).targets.item<int64_t>(), 8);
}

TEST(ListOpsTask, ReportsABrokenValidationFileWithTheFirstTrainingBatch) {
  const TempFolder folder;
  folder.write("train.tsv", "Source\tTarget\n[MAX 1 2 ]\t2\n");
  folder.write("val.tsv", "Source\tTarget\n[MAX 1 2 ]\t3\n");
  TaskConfig config;
  config.base_folder = folder.path().string();
  config.batch_size = 1;
  const auto task =
      make({{"train_file", std::string("train.tsv")}, {"validation_file", std::string("val.tsv")}},
           config);
  EXPECT_THAT(message_of([&] { task->train_batch(0); }), HasSubstr("val.tsv:2: expected"));
}

TEST(ListOpsTask, RefusesImpossibleOptions) {
  const auto message = [](const std::string& key, const OptionValue& value) {
    return message_of([&] { make_short(key, value); });
  };
  EXPECT_THAT(message("pooling", std::string("max")), HasSubstr("pooling to be one of cls, mean"));
  EXPECT_THAT(message("evaluate_on", std::string("train")), HasSubstr("validation, test"));
  EXPECT_THAT(message("train_size", int64_t{0}), HasSubstr("train_size of at least 1; found 0"));
  EXPECT_THAT(message("validation_size", int64_t{0}), HasSubstr("validation_size of at least 1"));
  EXPECT_THAT(message("bucket_batches", int64_t{0}), HasSubstr("bucket_batches of at least 1"));
  EXPECT_THAT(message("data_seed", int64_t{-1}), HasSubstr("data_seed of at least 0; found -1"));
  EXPECT_THAT(message("max_length", int64_t{4}), HasSubstr("found min_length 5, max_length 4"));
  EXPECT_THAT(message("train_file", std::string("a.tsv")), HasSubstr("found max_args = 4"));
}

TEST(ListOpsTask, RefusesHalfOfTheFiles) {
  EXPECT_THAT(message_of([] {
                make({{"train_file", std::string("a.tsv")}});
              }),
              HasSubstr("expected validation_file beside train_file; found none"));
  EXPECT_THAT(message_of([] {
                make({{"validation_file", std::string("a.tsv")}});
              }),
              HasSubstr("expected train_file beside validation_file; found none"));
}

TEST(ListOpsTask, RefusesTooFewRowsForABatch) {
  const auto task = make_short("train_size", int64_t{31});
  EXPECT_THAT(message_of([&] { task->train_batch(0); }),
              AllOf(HasSubstr("at least one batch of 32 rows; found 31 rows"),
                    HasSubstr("Lower train.batch_size")));
}

}  // namespace
}  // namespace headloom::tasks::listops

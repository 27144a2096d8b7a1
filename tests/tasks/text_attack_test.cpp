#include "headloom/tasks/text_attack.h"

#include <torch/torch.h>

#include "headloom/tasks/classification/classification_task.h"
#include "tests/tasks/support.h"

namespace headloom::tasks {
namespace {

using ::testing::HasSubstr;

// Texts whose class hangs on one word among words that say nothing.
std::string reviews(int count) {
  const char* const good[] = {"lovely", "charming", "splendid"};
  const char* const bad[] = {"dreadful", "tedious", "clumsy"};
  std::string text = "sentence\tlabel\n";
  for (int i = 0; i < count; ++i) {
    text += cat(i / 2 % 2 ? "the film " : "this story ", "is a ", (i % 2 ? good : bad)[i % 3],
                i % 5 ? " piece of work" : " thing to watch", '\t', i % 2, '\n');
  }
  return text;
}

// A classifier that has learned the words.
class TextAttack : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    folder_->write("train.tsv", reviews(64));
    folder_->write("dev.tsv", reviews(30));
    TaskConfig config;
    config.batch_size = 16;
    config.base_folder = folder_->path().string();
    task_ = make_task("classification", config,
                      {{"train_file", std::string("train.tsv")},
                       {"validation_file", std::string("dev.tsv")},
                       {"max_length", int64_t{24}},
                       {"vocabulary", int64_t{200}}})
                .release();
    nn::TransformerConfig model;
    model.dim = 16;
    model.layers = 1;
    model.heads = 2;
    model.ffn = 32;
    model.max_length = 24;
    torch::manual_seed(1);
    model_ = new std::shared_ptr<Model>(task_->make_model(model));
    torch::optim::Adam optimizer((*model_)->parameters(), torch::optim::AdamOptions(1e-2));
    for (int64_t step = 0; step < 40; ++step) {
      const Batch batch = task_->train_batch(step);
      optimizer.zero_grad();
      task_->loss((*model_)->forward(batch), batch).sum.backward();
      optimizer.step();
    }
    (*model_)->eval();
  }
  static void TearDownTestSuite() {
    delete model_;
    delete task_;
    delete folder_;
  }

  static const TextClassifier& classifier() { return dynamic_cast<TextClassifier&>(*task_); }
  static AttackReport attack_with(const AttackPlan& plan) {
    return attack_model(**model_, classifier(), plan);
  }

  inline static TempFolder* folder_ = nullptr;
  inline static Task* task_ = nullptr;
  inline static std::shared_ptr<Model>* model_ = nullptr;
};

TEST_F(TextAttack, CharacterEditsBreakTheWordThatCounts) {
  const AttackReport report = attack_with({.attack = "character", .examples = 0});
  EXPECT_EQ(report.examples(), 30);
  EXPECT_EQ(report.clean_accuracy(), 100.0) << "the model has learned the words";
  EXPECT_GT(report.succeeded, 0);
  EXPECT_GT(report.words_changed(), 0.0);
  EXPECT_LT(report.words_changed(), 60.0);
  EXPECT_GT(report.mean_queries(), 7.0) << "the text, and each of at least six words deleted";
  EXPECT_EQ(report.accuracy_under_attack(), report.failure_rate());
}

TEST_F(TextAttack, NeighboursAndFlipsNeedTheirCosine) {
  for (const char* name : {"embedding", "hotflip"}) {
    const AttackReport near = attack_with({.attack = name, .examples = 10, .least = -1.0});
    EXPECT_GT(near.succeeded, 0) << name;
    const AttackReport none = attack_with({.attack = name, .examples = 10, .least = 1.0});
    EXPECT_EQ(none.failure_rate(), 100.0) << name << ": nothing but a word itself is that near";
    EXPECT_LT(none.mean_queries(), near.mean_queries()) << name;
  }
}

TEST_F(TextAttack, IsTheSameForTheSameSeed) {
  for (const std::string& name : attack_names()) {
    const AttackPlan plan{.attack = name, .examples = 8, .seed = 3};
    const AttackReport one = attack_with(plan), two = attack_with(plan);
    EXPECT_EQ(one.examples(), 8);
    EXPECT_EQ(one.queries, two.queries) << name;
    EXPECT_EQ(one.succeeded, two.succeeded) << name;
    EXPECT_EQ(one.changed_shares, two.changed_shares) << name;
  }
}

TEST_F(TextAttack, KeepsToItsBudget) {
  for (const std::string& name : attack_names()) {
    const AttackReport report = attack_with({.attack = name, .examples = 6, .budget = 2});
    EXPECT_LE(report.queries, 2 * report.attacked()) << name;
    EXPECT_EQ(report.failure_rate(), 100.0) << name;
  }
}

// Rows of the embedding in the place of tokens are the tokens.
TEST_F(TextAttack, RowsOfTheEmbeddingAreTokens) {
  const at::NoGradGuard off;
  const Batch batch = classifier().batch_of({classifier().validation_texts()[0]});
  const at::Tensor rows =
      classifier().embedding(**model_).index_select(0, batch.tokens[0]).unsqueeze(0);
  EXPECT_TRUE(at::equal(classifier().forward_rows(**model_, rows), (*model_)->forward(batch)));
}

TEST_F(TextAttack, RefusesWhatCannotBe) {
  const auto refusal = [&](const AttackPlan& plan) {
    return message_of([&] { attack_with(plan); });
  };
  EXPECT_THAT(refusal({.attack = "textfooler"}),
              HasSubstr("an attack among character, embedding, hotflip; found \"textfooler\""));
  EXPECT_THAT(refusal({.examples = -1}), HasSubstr("0 examples or more; found -1"));
  EXPECT_THAT(refusal({.budget = -1}), HasSubstr("a budget of 0 queries or more; found -1"));
  EXPECT_THAT(refusal({.least = 0.5}), HasSubstr("no least cosine for character edits"));
  EXPECT_THAT(refusal({.attack = "hotflip", .least = 2.0}), HasSubstr("from -1 to 1; found 2"));
  (*model_)->train();
  EXPECT_THAT(refusal({}), HasSubstr("a model in evaluation mode"));
  (*model_)->eval();
}

}  // namespace
}  // namespace headloom::tasks

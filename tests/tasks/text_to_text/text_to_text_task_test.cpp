// B batch, K classes, T tokens of a word.
#include "headloom/tasks/text_to_text/text_to_text_task.h"

#include <torch/torch.h>

#include <set>

#include "headloom/tasks/encoder_decoder_model.h"
#include "headloom/tasks/text_to_text/prompts.h"
#include "tests/support/closeness.h"
#include "tests/tasks/text_tasks.h"

namespace headloom::tasks::text_to_text {
namespace {

using at::Tensor;
using ::testing::HasSubstr;

constexpr int64_t kPad = 0, kEnd = 3;  // of [PAD] [UNK] [CLS] [SEP] [MASK]

nn::TransformerConfig small_model() {
  return small_transformer(32);
}

// Answers are words of the texts.
class TextToText : public GlueTest {
 protected:
  TextToText()
      : GlueTest("text_to_text",
                 {{"negative", std::string("bad")}, {"positive", std::string("good")}}) {}
};

const TextToTextTask& as_text(const Task& task) {
  return dynamic_cast<const TextToTextTask&>(task);
}

const text::Tokenizer& tokenizer_of(const Task& task) {
  return *as_text(task).vocabularies().source;
}

TEST_F(TextToText, PromptsAreTheTokensOfTheWholeText) {
  const auto task = make();
  const text::Tokenizer& tokenizer = tokenizer_of(*task);
  const auto& formats = glue_formats();
  EXPECT_EQ(prompt({{"a good row"}, 1}, formats[0], tokenizer, 31, "test"),
            tokenizer.encode("sst2 sentence: a good row"));
  EXPECT_EQ(prompt({{"a good row", "row 2"}, 1}, formats[1], tokenizer, 90, "test"),
            tokenizer.encode("mrpc sentence1: a good row sentence2: row 2"));
  // Byte-level tokens hold the space in front of them.
  for (const bool prefix_space : {false, true}) {
    text::TokenizerTrainerOptions options;
    options.size = 300;
    options.prefix_space = prefix_space;
    text::TokenizerTrainer trainer(options);
    trainer.add("sentence1: sentence2: rte loom loom stands stands");
    const text::Tokenizer bytes = trainer.train();
    EXPECT_EQ(prompt({{"the loom", "it stands"}, 1}, formats[2], bytes, 90, "test"),
              bytes.encode("rte sentence1: the loom sentence2: it stands"));
  }
}

TEST_F(TextToText, LongPromptsLoseTheEndOfTheLongerSentence) {
  const auto task = make_pairs();
  const text::Tokenizer& tokenizer = tokenizer_of(*task);
  const ClassifiedTexts row{{"the loom stands in room number", "the loom"}, 0};
  const auto whole = prompt(row, glue_formats()[2], tokenizer, 100, "test");
  const auto room = static_cast<int64_t>(whole.size()) - 1;
  const auto cut = prompt(row, glue_formats()[2], tokenizer, room, "test");
  EXPECT_EQ(static_cast<int64_t>(cut.size()), room);
  EXPECT_EQ(cut, [&] {
    auto shorter = row;
    shorter.sentences[0] = "the loom stands in room";
    auto expected = prompt(shorter, glue_formats()[2], tokenizer, 100, "test");
    // "number" may be more than one token: only then the cut text is longer.
    const size_t rest = cut.size() - expected.size();
    const size_t at = tokenizer.encode("rte sentence1: the loom stands in room").size();
    expected.insert(expected.begin() + at, cut.begin() + at, cut.begin() + at + rest);
    return expected;
  }());
}

TEST_F(TextToText, TrainingBatchesAreThePromptAndTheWord) {
  const auto task = make({{"bucket_batches", int64_t{1}}});
  const text::Tokenizer& tokenizer = tokenizer_of(*task);
  const Batch batch = task->train_batch(0);
  ASSERT_EQ(batch.tokens.size(0), 8);
  EXPECT_FALSE(batch.choices.defined());
  EXPECT_TRUE((batch.decoder_tokens.select(1, 0) == kPad).all().item<bool>());
  const std::vector<std::string> words{"bad", "good"};
  int64_t found = 0;
  for (int64_t b = 0; b < 8; ++b) {
    const Tensor source = batch.tokens[b].masked_select(batch.tokens[b] != kPad);
    EXPECT_EQ(source[-1].item<int64_t>(), kEnd);
    const bool positive = (source == tokenizer.encode("good")[0]).any().item<bool>();
    const auto word = tokenizer.encode(words[positive]);
    const Tensor target = batch.targets[b].masked_select(batch.targets[b] != -100);
    ASSERT_EQ(target.size(0), static_cast<int64_t>(word.size()) + 1);
    for (size_t i = 0; i < word.size(); ++i) {
      EXPECT_EQ(target[static_cast<int64_t>(i)].item<int64_t>(), word[i]);
    }
    EXPECT_EQ(target[-1].item<int64_t>(), kEnd);
    found += target.size(0);
  }
  EXPECT_EQ(batch.token_count, found);
}

TEST_F(TextToText, BatchesArePureFunctionsOfSeedAndIndex) {
  expect_pure_batches();
}

TEST_F(TextToText, ValidatesEveryRowOnce) {
  expect_every_validation_row_once();
}

TEST_F(TextToText, AnswersAreT5sUnlessStated) {
  const std::vector<std::pair<std::string, std::string>> expected{
      {"negative", "positive"}, {"not_equivalent", "equivalent"}, {"not_entailment", "entailment"}};
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(glue_formats()[i].words,
              (std::vector<std::string>{expected[i].first, expected[i].second}));
  }
  EXPECT_THAT(make()->metrics_note(), HasSubstr("\"bad\" and \"good\""));
}

// log p of each word and its end, from a forward pass for each alone.
Tensor expected_scores(const Task& task, nn::EncoderDecoder& model, const Batch& batch,
                       const std::vector<std::string>& words) {
  const text::Tokenizer& tokenizer = tokenizer_of(task);
  const Tensor scores = at::zeros({batch.tokens.size(0), 2});
  for (int64_t b = 0; b < batch.tokens.size(0); ++b) {
    const Tensor source = batch.tokens[b].masked_select(batch.tokens[b] != kPad).unsqueeze(0);
    for (int64_t k = 0; k < 2; ++k) {
      std::vector<int64_t> read{kPad}, wanted = tokenizer.encode(words[k]);
      read.insert(read.end(), wanted.begin(), wanted.end());
      wanted.push_back(kEnd);
      const Tensor logits =
          model.forward(source, at::tensor(read, at::kLong).unsqueeze(0));  // [1, T, V]
      const Tensor chosen =
          logits[0].log_softmax(1).gather(1, at::tensor(wanted, at::kLong).unsqueeze(1));
      scores[b][k] = chosen.sum();
    }
  }
  return scores;
}

TEST_F(TextToText, ClassesAreRankedByTheWholeWord) {
  torch::manual_seed(1);
  const auto task = make({{"negative", std::string("not good")}});
  const auto model = task->make_model(small_model());
  model->eval();
  const at::NoGradGuard no_grad;
  const Batch batch = task->validation_batch(1);
  ASSERT_TRUE(batch.masks.key_padding_mask.defined()) << "rows of different lengths";
  ASSERT_EQ(batch.choices.size(0), 2);
  EXPECT_TRUE((batch.choices[1] == -100).any().item<bool>()) << "words of different lengths";
  const Tensor scores = model->forward(batch);
  ASSERT_EQ(scores.sizes(), (at::IntArrayRef{batch.tokens.size(0), 2}));
  EXPECT_EQ(
      headloom::testing::differs_by_more_than_rounding(
          scores, expected_scores(*task, encoder_decoder_of(*model), batch, {"not good", "good"})
                      .to(at::kDouble)),
      std::nullopt);
  EXPECT_TRUE((scores.exp().sum(1) < 1.0).all().item<bool>());
  EXPECT_EQ(batch.targets.scalar_type(), at::kLong);
  Totals totals;
  task->measure(scores, batch, totals);
  const double right = scores.argmax(1).eq(batch.targets).to(at::kDouble).mean().item<double>();
  const Metrics metrics = task->metrics(totals);
  EXPECT_EQ(metrics[0].first, "loss");
  EXPECT_EQ(metrics[1], (std::pair<std::string, double>("accuracy", right)));
  EXPECT_EQ(metrics[2].first, "f1");
  EXPECT_EQ(metrics[3].first, "matthews");
  EXPECT_EQ(metrics[4].first, "ece");
}

TEST_F(TextToText, LearnsAndAnswers) {
  torch::manual_seed(1);
  const auto task = make();
  const auto model = task->make_model(small_model());
  learn(*task, *model, 60);
  EXPECT_EQ(measured(*task, *model)[1], (std::pair<std::string, double>("accuracy", 1.0)));
  TranslateOptions options;
  options.beam = as_text(*task).beam_options();
  const auto answers = as_text(*task).translate(
      *model, {"sst2 sentence: row 3 is a good and even row", "sst2 sentence: row 8 is bad"},
      options, 1);
  EXPECT_EQ(answers[0][0].text, "good");
  EXPECT_EQ(answers[1][0].text, "bad");
}

TEST_F(TextToText, AnswersWithoutItsData) {
  const TempFolder run;
  make()->keep(run.path().string());
  for (const char* file : {"train.tsv", "dev.tsv"}) {
    std::filesystem::remove(folder_.path() / file);
  }
  config_.run_folder = run.path().string();
  const auto task = make();
  const auto model = task->make_model(small_model());
  model->eval();
  EXPECT_EQ(as_text(*task).translate(*model, {"sst2 sentence: row"}, {}, 1).size(), 1u);
  EXPECT_THAT(message_of([&] { task->train_batch(0); }), HasSubstr("train.tsv"));
}

TEST_F(TextToText, WritesNoSentinelAndNothingWithoutAToken) {
  const auto task = make();
  const Vocabularies& vocabularies = as_text(*task).vocabularies();
  const int64_t rows =
      task->make_model(small_model())->named_parameters()["model.source_embedding.weight"].size(0);
  EXPECT_EQ(rows, 220) << "100 sentinels by default";
  const std::set<int64_t> never(vocabularies.never.begin(), vocabularies.never.end());
  for (int64_t id = tokenizer_of(*task).size(); id < rows; ++id) EXPECT_TRUE(never.count(id)) << id;
  EXPECT_TRUE(never.count(kPad));
  EXPECT_FALSE(never.count(kEnd));
}

TEST_F(TextToText, RefusesWhatCannotBe) {
  const auto refusal = [&](Options options) {
    return message_of([&] { make(std::move(options))->train_batch(0); });
  };
  EXPECT_THAT(refusal({{"train_file", std::string()}}),
              HasSubstr("task text_to_text: expected train_file; found none"));
  EXPECT_THAT(refusal({{"max_length", int64_t{7}}}), HasSubstr("max_length of at least 8"));
  EXPECT_THAT(refusal({{"max_length", int64_t{8}}, {"format", std::string("rte")}}),
              HasSubstr("a header with the column"));
  EXPECT_THAT(message_of([&] {
                make_pairs({{"max_length", int64_t{8}}})->train_batch(0);
              }),
              HasSubstr("for \"rte sentence1: sentence2:\", a token and the end; found 8"));
  EXPECT_THAT(refusal({{"positive", std::string("bad")}}),
              HasSubstr("tokens that differ; found \"bad\" and \"bad\""));
  EXPECT_THAT(refusal({{"negative", std::string(" ")}}), HasSubstr("tokens that differ"));
  EXPECT_THAT(refusal({{"pooling", std::string("cls")}}), HasSubstr("pooling"));
  EXPECT_THAT(message_of([&] {
                make({{"max_length", int64_t{64}}})->make_model(small_model());
              }),
              HasSubstr("model.max_length of at least task.max_length, 64; found 32"));
}

}  // namespace
}  // namespace headloom::tasks::text_to_text

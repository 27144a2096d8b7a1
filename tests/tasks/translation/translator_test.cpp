#include "headloom/tasks/translator.h"

#include "headloom/tasks/encoder_decoder_model.h"
#include "tests/tasks/translation/translation_support.h"

namespace headloom::tasks::translation {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

class TranslatorTest : public ::testing::Test {
 protected:
  TranslatorTest() {
    at::manual_seed(4);
    model_ = task_->make_model(small_model());
    options_.beam.beam = 3;
    options_.beam.length_extra = 10;
  }

  std::vector<std::vector<Translation>> translate(const std::vector<std::string>& lines) {
    return as_translation(*task_).translate(*model_, lines, options_, 1);
  }
  std::vector<std::string> best(const std::vector<std::string>& lines) {
    std::vector<std::string> texts;
    for (const auto& translations : translate(lines)) texts.push_back(translations.at(0).text);
    return texts;
  }

  const NumberFolder folder_;
  const std::unique_ptr<Task> task_ = folder_.make();
  std::shared_ptr<Model> model_;
  TranslateOptions options_;
};

TEST_F(TranslatorTest, OrderAndCompanyChangeNothing) {
  const std::vector<std::string> lines = {"one two three four five six",
                                          "seven",
                                          "",
                                          "eight nine",
                                          "one two three four five six seven eight",
                                          "seven"};
  const auto together = best(lines);
  EXPECT_EQ(together[2], "");
  EXPECT_EQ(together[1], together[5]);
  for (size_t i = 0; i < lines.size(); ++i) EXPECT_EQ(best({lines[i]})[0], together[i]) << i;
  options_.batch_tokens = 1;
  EXPECT_EQ(best(lines), together);
  options_.beam.cache = false;
  EXPECT_EQ(best(lines), together);
  EXPECT_THAT(best({}), IsEmpty());
}

TEST_F(TranslatorTest, NBestComesBestFirst) {
  options_.beam.n_best = 3;
  const auto found = translate({"one two", ""});
  EXPECT_THAT(found[0], SizeIs(3));
  EXPECT_GE(found[0][0].score, found[0][1].score);
  EXPECT_GE(found[0][1].score, found[0][2].score);
  EXPECT_THAT(found[1], SizeIs(1));
}

TEST_F(TranslatorTest, TranslationsBeginWithTheirPrefix) {
  options_.prefixes = {"4 2", "", "7"};
  const auto found = best({"one two", "one two", "three"});
  EXPECT_THAT(found[0], StartsWith("4 2"));
  EXPECT_THAT(found[2], StartsWith("7"));
  options_.prefixes = {"4"};
  EXPECT_THAT(message_of([&] { best({"one", "two"}); }), HasSubstr("a prefix for each of 2 lines"));
}

TEST_F(TranslatorTest, AnyBytesAreALine) {
  const auto found =
      best({std::string("\xff\xfe\0 one", 7), std::string(" \t "), "\xe2\x82", "</s> <s> <pad>"});
  EXPECT_THAT(found, SizeIs(4));
  for (const std::string& text : found) {
    EXPECT_EQ(text.find('\n'), std::string::npos);
    EXPECT_EQ(text.find("<s>"), std::string::npos);
  }
}

TEST_F(TranslatorTest, LinesThatAreTooLongAreRefusedOrCut) {
  std::string line;
  for (int i = 0; i < 70; ++i) line += "one ";
  EXPECT_THAT(message_of([&] {
                best({"one", line});
              }),
              HasSubstr("line 2: expected at most 63 tokens, which this model holds; found"));
  options_.crop = true;
  EXPECT_THAT(best({line}), SizeIs(1));
  options_.batch_tokens = 0;
  EXPECT_THAT(message_of([&] { best({"one"}); }), HasSubstr("batch_tokens of at least 1"));
}

TEST_F(TranslatorTest, StopsBetweenBatches) {
  options_.batch_tokens = 1;
  const Translator translator(encoder_decoder_of(*model_), as_translation(*task_).vocabularies(),
                              options_);
  int64_t asked = 0;
  EXPECT_EQ(translator({"one", "two", "three"}, 1, [&] { return ++asked == 2; }), std::nullopt);
  EXPECT_EQ(asked, 2);
}

TEST_F(TranslatorTest, ThreadsDecodeBatchesOfTheirOwn) {
  const int threads = at::get_num_threads();
  options_.batch_tokens = 30;
  std::vector<std::string> lines;
  for (int i = 0; i < 40; ++i) lines.push_back(i % 7 == 3 ? "" : i % 2 ? "one two three" : "four");
  const Translator translator(encoder_decoder_of(*model_), as_translation(*task_).vocabularies(),
                              options_);
  const auto translate = [&](int count) {
    at::set_num_threads(count);
    return *translator(lines, 1, [] { return false; });
  };
  model_->train();
  const auto alone = translate(1), together = translate(3);
  at::set_num_threads(threads);
  EXPECT_TRUE(model_->is_training());
  for (size_t i = 0; i < lines.size(); ++i) {
    ASSERT_EQ(together[i].size(), alone[i].size()) << i;
    for (size_t k = 0; k < alone[i].size(); ++k) {
      EXPECT_EQ(together[i][k].text, alone[i][k].text) << i;
      EXPECT_EQ(together[i][k].score, alone[i][k].score) << i;
    }
  }
}

TEST_F(TranslatorTest, ClosingMetricsAreTakenOfDecodedText) {
  const auto metrics = task_->closing_metrics(*model_, [] { return false; });
  ASSERT_THAT(*metrics, SizeIs(2));
  EXPECT_EQ((*metrics)[0].first, task_->headline().name);
  EXPECT_EQ(task_->closing_metrics(*model_, [] { return true; }), std::nullopt);
  EXPECT_THAT(task_->metrics_note(), HasSubstr("tok:none"));
}

// Learning itself: number words into digits.
TEST(TranslationSlow, AModelLearnsToTranslate) {
  const int threads = at::get_num_threads();
  at::set_num_threads(1);  // tensors this small gain nothing from more
  const NumberFolder folder(2000, 50);
  const auto task = folder.make();
  at::manual_seed(1);
  const auto model = task->make_model(small_model());
  torch::optim::Adam optimizer(model->parameters(), 3e-3);
  for (int64_t step = 0; step < 1500; ++step) {
    const Batch batch = task->train_batch(step);
    optimizer.zero_grad();
    const Loss loss = task->loss(model->forward(batch), batch);
    (loss.sum / loss.weight).backward();
    optimizer.step();
  }
  const auto metrics = *task->closing_metrics(*model, [] { return false; });
  at::set_num_threads(threads);
  EXPECT_GT(metrics[0].second, 90.0) << "BLEU";
}

}  // namespace
}  // namespace headloom::tasks::translation

// B batch, S source tokens, T target tokens, V vocabulary.
#include "headloom/tasks/translation/translation_task.h"

#include <set>

#include "headloom/tasks/encoder_decoder_model.h"
#include "tests/tasks/translation/translation_support.h"

namespace headloom::tasks::translation {
namespace {

using at::Tensor;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(TranslationTask, ABatchIsSourceTargetAndWhatToPredict) {
  const NumberFolder folder;
  const auto task = folder.make();
  const Vocabularies& vocabularies = as_translation(*task).vocabularies();
  const Batch batch = task->train_batch(0);
  const int64_t rows = batch.tokens.size(0), width = batch.targets.size(1);
  ASSERT_EQ(batch.decoder_tokens.sizes(), batch.targets.sizes());
  EXPECT_TRUE(batch.decoder_tokens.select(1, 0).eq(vocabularies.target_begin).all().item<bool>());
  int64_t tokens = 0;
  for (int64_t b = 0; b < rows; ++b) {
    int64_t length = 0;
    while (length < width && batch.targets[b][length].item<int64_t>() >= 0) ++length;
    tokens += length;
    EXPECT_EQ(batch.targets[b][length - 1].item<int64_t>(), vocabularies.target_end);
    for (int64_t t = 1; t < length; ++t) {
      EXPECT_EQ(batch.decoder_tokens[b][t].item<int64_t>(),
                batch.targets[b][t - 1].item<int64_t>());
    }
    for (int64_t t = length; t < width; ++t) EXPECT_EQ(batch.targets[b][t].item<int64_t>(), -100);
  }
  EXPECT_EQ(batch.token_count, tokens);
  EXPECT_EQ(task->loss(at::zeros({rows, width, vocabularies.target->size()}), batch).weight,
            tokens);
}

TEST(TranslationTask, PaddingIsMarkedAndSourcesEnd) {
  const NumberFolder folder;
  const Vocabularies& vocabularies = as_translation(*folder.make()).vocabularies();
  const auto [tokens, padding] = source_batch({{7, 8, 9}, {7}}, vocabularies);
  const int64_t end = vocabularies.source_end, pad = vocabularies.source_pad;
  EXPECT_TRUE(at::equal(
      tokens, at::tensor({int64_t{7}, int64_t{8}, int64_t{9}, end, int64_t{7}, end, pad, pad})
                  .view({2, 4})));
  EXPECT_TRUE(at::equal(padding[0], at::zeros({4}, at::kBool)));
  EXPECT_TRUE(at::equal(padding[1], at::tensor({0, 0, 1, 1}).to(at::kBool)));
  EXPECT_FALSE(source_batch({{7, 8}, {8, 9}}, vocabularies).second.defined());
}

TEST(TranslationTask, BatchesRepeat) {
  const NumberFolder folder;
  const auto task = folder.make(), again = folder.make();
  for (const int64_t index : {0, 3, 40}) {
    const Batch a = task->train_batch(index), b = again->train_batch(index);
    EXPECT_TRUE(at::equal(a.tokens, b.tokens));
    EXPECT_TRUE(at::equal(a.targets, b.targets));
  }
}

TEST(TranslationTask, ValidationSeesEveryPairOnce) {
  const NumberFolder folder;
  const auto task = folder.make();
  int64_t rows = 0;
  for (int64_t i = 0; i < task->validation_batches(); ++i) {
    rows += task->validation_batch(i).tokens.size(0);
  }
  EXPECT_EQ(rows, 20);
  EXPECT_THAT(message_of([&] { task->validation_batch(task->validation_batches()); }),
              HasSubstr("a validation batch below"));
  const auto by_rows = folder.make({{"max_tokens", int64_t{0}}});
  EXPECT_EQ(by_rows->validation_batch(0).tokens.size(0), 20) << "batches of 32 pairs";
}

TEST(TranslationTask, TrainingLeavesOutEmptyAndLongPairs) {
  const NumberFolder folder;
  folder.files().write("few.words", "one\n\ntwo\nthree three three three three three\n");
  folder.files().write("few.digits", "1\n2\n\n3 3 3 3 3 3\n");
  const auto task = folder.make({{"train_source", std::string("few.words")},
                                 {"train_target", std::string("few.digits")},
                                 {"longest", int64_t{5}}});
  EXPECT_EQ(task->train_batch(0).tokens.size(0), 1);
  folder.files().write("none.words", "one\n\n");
  folder.files().write("none.digits", "\n2\n");
  const auto none = folder.make(
      {{"train_source", std::string("none.words")}, {"train_target", std::string("none.digits")}});
  EXPECT_THAT(message_of([&] { none->train_batch(0); }), HasSubstr("found none among 2"));
}

TEST(TranslationTask, MeasuresPerToken) {
  const NumberFolder folder;
  const auto task = folder.make();
  const Batch batch = task->validation_batch(0);
  const int64_t vocabulary = as_translation(*task).vocabularies().target->size();
  const Tensor right = at::one_hot(batch.targets.clamp_min(0), vocabulary).to(at::kFloat) * 50.0;
  Totals totals;
  task->measure(right, batch, totals);
  Metrics metrics = task->metrics(totals);
  EXPECT_THAT(metrics[0].first, "nats_per_token");
  EXPECT_NEAR(metrics[0].second, 0.0, 1e-6);
  EXPECT_NEAR(metrics[1].second, 1.0, 1e-6);
  EXPECT_EQ(metrics[2].second, 1.0);
  Totals uniform;
  task->measure(at::zeros_like(right), batch, uniform);
  metrics = task->metrics(uniform);
  EXPECT_NEAR(metrics[1].second, static_cast<double>(vocabulary), 1e-2);
}

TEST(TranslationTask, EachPartHasItsMixer) {
  const NumberFolder folder;
  TaskConfig config = folder.config();
  config.parts.decoder_layers = 2;
  config.parts.ffn_dropout = 0.25;
  config.parts.encoder_mixer = {"light_conv", {{"kernel_sizes", std::vector<int64_t>{3}}}};
  nn::TransformerConfig model = small_model();
  model.mixer = "dynamic_conv";
  model.mixing_dropout = 0.125;
  const nn::EncoderDecoderConfig found = encoder_decoder_config(model, config.parts);
  EXPECT_EQ(found.encoder_mixer.name, "light_conv");
  EXPECT_EQ(found.encoder_mixer.options.size(), 1u);
  EXPECT_EQ(found.decoder_mixer.name, "dynamic_conv");
  EXPECT_EQ(found.cross_mixer.name, "dot_product");
  EXPECT_EQ(found.cross_mixer.dropout, 0.125);
  EXPECT_EQ(found.cross_mixer.heads, 2);
  EXPECT_EQ(found.decoder_layers, 2);
  EXPECT_EQ(found.encoder_layers, 1);
  EXPECT_EQ(found.ffn_dropout, 0.25);
  const auto task = make_task("translation", config, NumberFolder::options());
  const auto made = task->make_model(model);
  const auto names = made->named_parameters();
  EXPECT_TRUE(names.contains("model.encoder.0.mixer.weight"));
  EXPECT_TRUE(names.contains("model.decoder.1.cross.q_proj.weight"));
  EXPECT_GT(made->flops(10), 0.0);
  config.parts.cross_mixer = {"dot_product", {{"no_such", true}}};
  EXPECT_THAT(message_of([&] {
                make_task("translation", config, NumberFolder::options())->make_model(model);
              }),
              HasSubstr("no_such"));
}

TEST(TranslationTask, PartsAreForEncoderDecodersAlone) {
  TaskConfig config;
  config.parts.decoder_layers = 2;
  config.parts.cross_mixer.name = "dot_product";
  EXPECT_THAT(message_of([&] { make_task("listops", config, {}); }),
              HasSubstr("task listops: expected a model without encoder and decoder; found "
                        "[cross_mixer], model.decoder_layers."));
}

TEST(TranslationTask, EmbeddingsAreSharedWithAJointVocabulary) {
  const NumberFolder folder;
  const auto names = [&](const Options& changes) {
    return folder.make(changes)->make_model(small_model())->named_parameters();
  };
  EXPECT_FALSE(names({}).contains("model.target_embedding.weight"));
  EXPECT_TRUE(names({{"share_embeddings", false}}).contains("model.target_embedding.weight"));
  EXPECT_TRUE(names({{"tie_output", false}}).contains("model.output.weight"));
}

TEST(TranslationTask, TwoTokenizersServeTwoLanguages) {
  const NumberFolder folder;
  Options options = NumberFolder::options();
  options.erase("tokenizer");
  options["source_tokenizer"] = options["target_tokenizer"] = std::string("tokenizer.json");
  const auto task = make_task("translation", folder.config(), options);
  EXPECT_FALSE(as_translation(*task).vocabularies().is_joint());
  const auto model = task->make_model(small_model());
  EXPECT_TRUE(model->named_parameters().contains("model.target_embedding.weight"));
  const Batch batch = task->train_batch(0);
  EXPECT_EQ(model->forward(batch).size(0), batch.tokens.size(0));
  options["share_embeddings"] = true;
  EXPECT_THAT(message_of([&] { make_task("translation", folder.config(), options); }),
              HasSubstr("a joint vocabulary, with share_embeddings"));
}

TEST(TranslationTask, AVocabularyIsLearnedWhenItIsNotThere) {
  const NumberFolder folder;
  const auto task =
      folder.make({{"tokenizer", std::string("made/new.json")}, {"vocabulary", int64_t{280}}});
  EXPECT_EQ(as_translation(*task).vocabularies().source->size(), 280);
  const auto again = folder.make({{"tokenizer", std::string("made/new.json")}});
  EXPECT_EQ(as_translation(*again).vocabularies().source->size(), 280);
  EXPECT_THAT(message_of([&] {
                folder.make({{"tokenizer", std::string("other.json")},
                             {"vocabulary", int64_t{280}},
                             {"train_source", std::string("absent")}});
              }),
              HasSubstr("absent: expected a readable file"));
  EXPECT_THAT(message_of([&] {
                folder.make({{"vocabulary", int64_t{-1}}});
              }),
              HasSubstr("vocabulary of at least 0"));
}

TEST(TranslationTask, ARunKeepsItsTokenizer) {
  const NumberFolder folder;
  const TempFolder run;
  const auto task = folder.make();
  task->keep(run.path().string());
  const int64_t size = as_translation(*task).vocabularies().source->size();
  std::filesystem::remove(folder.files().path() / "tokenizer.json");
  TaskConfig config = folder.config();
  EXPECT_THAT(message_of([&] { make_task("translation", config, NumberFolder::options()); }),
              HasSubstr("no such file"));
  config.run_folder = run.path().string();
  const auto again = make_task("translation", config, NumberFolder::options());
  EXPECT_EQ(as_translation(*again).vocabularies().source->size(), size);
  again->keep(run.path().string());
}

TEST(TranslationTask, RefusesWhatItCannotRead) {
  const NumberFolder folder;
  const auto refused = [&](const Options& changes) {
    return message_of([&] { folder.make(changes); });
  };
  EXPECT_THAT(refused({{"tokeniser", std::string("x")}}), HasSubstr("Did you mean \"tokenizer\"?"));
  EXPECT_THAT(refused({{"source_tokenizer", std::string("x")}}),
              HasSubstr("tokenizer and another"));
  EXPECT_THAT(refused({{"longest", int64_t{1}}}), HasSubstr("longest of at least 2"));
  EXPECT_THAT(refused({{"max_tokens", int64_t{63}}}),
              HasSubstr("max_tokens of at least longest = 64"));
  EXPECT_THAT(refused({{"label_smoothing", 1.0}}), HasSubstr("label_smoothing in [0, 1)"));
  EXPECT_THAT(refused({{"length_penalty", std::string("gmnt")}}), HasSubstr("\"gnmt\"?"));
  EXPECT_THAT(refused({{"evaluate_on", std::string("train")}}), HasSubstr("validation, test"));
  const auto task = folder.make();
  nn::TransformerConfig model = small_model();
  model.max_length = 63;
  EXPECT_THAT(message_of([&] { task->make_model(model); }),
              HasSubstr("model.max_length of at least task.longest, 64; found 63"));
  folder.files().write("short.digits", "1\n2\n");
  const auto uneven = folder.make({{"train_target", std::string("short.digits")}});
  EXPECT_THAT(message_of([&] { uneven->train_batch(0); }),
              HasSubstr("short.digits: expected 200 lines"));
  const auto untested = folder.make({{"evaluate_on", std::string("test")}});
  EXPECT_THAT(message_of([&] { untested->validation_batches(); }), HasSubstr("test_source"));
  folder.files().write("long.words", "one\none two three four five six seven eight\n");
  folder.files().write("long.digits", "1\n1\n");
  const auto longer = folder.make({{"validation_source", std::string("long.words")},
                                   {"validation_target", std::string("long.digits")},
                                   {"longest", int64_t{6}}});
  EXPECT_THAT(message_of([&] { longer->validation_batches(); }), HasSubstr("long.words:2"));
}

}  // namespace
}  // namespace headloom::tasks::translation

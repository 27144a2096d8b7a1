#include "headloom/tasks/span_corruption/span_corruption_task.h"

#include <torch/torch.h>

#include <cmath>

#include "tests/tasks/text_tasks.h"

namespace headloom::tasks::span_corruption {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kPad = 0, kBegin = 2, kEnd = 3;  // of [PAD] [UNK] [CLS] [SEP] [MASK]
constexpr int64_t kVocabulary = 120, kSentinels = 20;

nn::TransformerConfig small_model() {
  return small_transformer(32);
}

class SpanCorruptionTest : public CorpusTest {
 protected:
  SpanCorruptionTest()
      : CorpusTest(
            "span_corruption",
            {{"context", int64_t{32}}, {"vocabulary", kVocabulary}, {"sentinels", kSentinels}}) {}
};

TEST_F(SpanCorruptionTest, BatchesHaveT5sLengths) {
  const auto task =
      make({{"context", int64_t{512}}, {"sentinels", int64_t{100}}, {"train_fraction", 0.5}});
  for (const Batch& batch : {task->train_batch(0), task->validation_batch(0)}) {
    EXPECT_EQ(batch.tokens.size(1), 512);
    EXPECT_EQ(batch.targets.size(1), 114);
    EXPECT_EQ(batch.decoder_tokens.sizes(), batch.targets.sizes());
    EXPECT_EQ(batch.token_count, batch.tokens.size(0) * 114);
    EXPECT_FALSE(batch.masks.key_padding_mask.defined());
    EXPECT_TRUE((batch.tokens.select(1, 511) == kEnd).all().item<bool>());
    EXPECT_TRUE((batch.targets.select(1, 113) == kEnd).all().item<bool>());
    const at::Tensor sentinels = (batch.tokens >= kVocabulary).sum(1);
    EXPECT_TRUE((sentinels == 28).all().item<bool>());
    EXPECT_TRUE(((batch.targets >= kVocabulary).sum(1) == 28).all().item<bool>());
    EXPECT_LT(batch.targets.max().item<int64_t>(), kVocabulary + 28);
  }
}

TEST_F(SpanCorruptionTest, TheDecoderReadsWhatItHasWritten) {
  for (const auto& [start, token] : {std::pair<const char*, int64_t>{"pad", kPad},
                                     std::pair<const char*, int64_t>{"begin", kBegin}}) {
    const Batch batch = make({{"decoder_start", std::string(start)}})->train_batch(0);
    EXPECT_TRUE((batch.decoder_tokens.select(1, 0) == token).all().item<bool>());
    EXPECT_TRUE(at::equal(batch.decoder_tokens.slice(1, 1), batch.targets.slice(1, 0, -1)));
    EXPECT_TRUE((batch.targets.select(1, 0) == kVocabulary).all().item<bool>())
        << "the first sentinel";
  }
}

TEST_F(SpanCorruptionTest, CorruptsAnewInTrainingAndNeverInValidation) {
  expect_pure_batches();
}

TEST_F(SpanCorruptionTest, ValidationDoesNotDependOnTheBatchSize) {
  expect_validation_of_any_batch_size();
}

int64_t rows_of(const Model& model) {
  return model.named_parameters()["model.source_embedding.weight"].size(0);
}

TEST_F(SpanCorruptionTest, ATokenizersOwnSentinelsTakeTheirPlace) {
  EXPECT_EQ(rows_of(*make()->make_model(small_model())), kVocabulary + kSentinels);
  // "a" to "c" with T5's names for three spans.
  folder_.write("own.json", R"({"model": {"type": "BPE", "merges": [], "vocab": {
      "<pad>": 0, "</s>": 1, "a": 2, "b": 3, "c": 4,
      "<extra_id_0>": 7, "<extra_id_1>": 6, "<extra_id_2>": 5}}})");
  std::string letters;
  for (int i = 0; i < 300; ++i) letters += "abcab";
  folder_.write("letters", letters + '\n' + letters + '\n');
  const Options own = {{"tokenizer", std::string("own.json")},
                       {"path", std::string("letters")},
                       {"train_fraction", 0.5},
                       {"vocabulary", int64_t{8}},
                       {"context", int64_t{30}}};
  const auto task = make(own);
  const Batch batch = task->train_batch(0);
  EXPECT_TRUE((batch.targets.select(1, 0) == 7).all().item<bool>());
  EXPECT_TRUE((batch.targets == 6).any(1).all().item<bool>());
  EXPECT_LT(batch.tokens.max().item<int64_t>(), 8);
  EXPECT_EQ(rows_of(*task->make_model(small_model())), 8) << "nothing is appended";
  Options more = own;
  more["context"] = int64_t{100};
  EXPECT_THAT(message_of([&] { make(more)->train_batch(0); }),
              HasSubstr("a sentinel for each of 5 spans; found 3"));
}

TEST_F(SpanCorruptionTest, EveryMechanismThatCanBeBothSidesTrains) {
  const auto task = make();
  const Batch batch = task->train_batch(0);
  int64_t built = 0;
  for_models(*task, 32, [&](const std::string& mechanism, Model& model) {
    ++built;
    const at::Tensor logits = model.forward(batch);
    EXPECT_EQ(logits.sizes(), (at::IntArrayRef{4, 8, kVocabulary + kSentinels}));
    const Loss loss = task->loss(logits, batch);
    EXPECT_EQ(loss.weight, 4.0 * 8.0);
    loss.sum.backward();
    for (const auto& parameter : model.named_parameters()) {
      EXPECT_TRUE(parameter.value().grad().defined()) << mechanism << parameter.key();
    }
  });
  EXPECT_GE(built, 4);
}

TEST_F(SpanCorruptionTest, T5sRelativePositionsNeedNoOthers) {
  nn::TransformerConfig config = small_model();
  config.positions = "none";
  config.norm_type = "rms";
  config.activation = "gated_gelu";
  config.mixer = "talking_heads";
  config.mixer_options = {{"relative_bias", std::string("t5")}, {"mixing", std::string("none")}};
  config_.parts.cross_mixer = {"talking_heads", {{"mixing", std::string("none")}}};
  const auto task = make();
  const auto model = task->make_model(config);
  model->eval();
  const Batch batch = task->train_batch(0);
  const auto names = model->named_parameters();
  EXPECT_FALSE(names.contains("model.source_positions"));
  EXPECT_FALSE(names.contains("model.encoder_norm.bias"));
  EXPECT_TRUE(names.contains("model.encoder.0.ffn_gate.weight"));
  const at::Tensor loss = task->loss(model->forward(batch), batch).sum;
  const at::NoGradGuard no_grad;
  for (const char* part :
       {"model.encoder.0.mixer.relative_bias", "model.decoder.0.mixer.relative_bias"}) {
    names[part].add_(at::randn(names[part].sizes()), 2.0);
    EXPECT_FALSE(at::equal(task->loss(model->forward(batch), batch).sum, loss)) << part;
  }
}

TEST_F(SpanCorruptionTest, LearnsSomething) {
  torch::manual_seed(1);
  const auto task = make({}, 16);
  const auto model = task->make_model(small_model());
  const auto [first, last] = learn(*task, *model, 80);
  EXPECT_LT(last, 0.6 * first);
}

TEST_F(SpanCorruptionTest, MetricsArePerTargetToken) {
  const auto task = make();
  const Batch batch = task->validation_batch(0);
  Totals totals;
  task->measure(at::zeros({batch.targets.size(0), 8, 140}), batch, totals);
  const Metrics metrics = task->metrics(totals);
  EXPECT_EQ(metrics[0].first, "nats_per_token");
  EXPECT_NEAR(metrics[0].second, std::log(140.0), 1e-5);
  EXPECT_NEAR(metrics[1].second, 140.0, 1e-2);
}

TEST_F(SpanCorruptionTest, RefusesWhatCannotBe) {
  const auto refusal = [&](Options options) {
    return message_of([&] { make(std::move(options))->train_batch(0); });
  };
  EXPECT_THAT(refusal({{"path", std::string()}}), HasSubstr("path, a text file or a folder"));
  EXPECT_THAT(refusal({{"context", int64_t{2}}}), HasSubstr("context of at least 3; found 2"));
  EXPECT_THAT(refusal({{"noise_density", 1.0}}), HasSubstr("noise_density between 0 and 1"));
  EXPECT_THAT(refusal({{"mean_span", 0.9}}), HasSubstr("mean_span of at least 1"));
  EXPECT_THAT(refusal({{"sentinels", int64_t{-1}}}), HasSubstr("sentinels of at least 0"));
  EXPECT_THAT(refusal({{"sentinels", int64_t{1}}}),
              HasSubstr("a sentinel for each of 2 spans; found 1"));
  EXPECT_THAT(refusal({{"decoder_start", std::string("end")}}), HasSubstr("pad, begin"));
  EXPECT_THAT(refusal({{"context", int64_t{5000}}, {"sentinels", int64_t{1000}}}),
              HasSubstr("tokens for training and as many for validation"));
  EXPECT_THAT(
      message_of([&] {
        make({{"context", int64_t{33}}})->make_model(small_model());
      }),
      AllOf(HasSubstr("model.max_length of at least 33, for inputs of 33"), HasSubstr("found 32")));
  folder_.write("plain.json",
                R"({"model": {"type": "BPE", "merges": [], "vocab": {"a": 0, "</s>": 1}}})");
  EXPECT_THAT(refusal({{"tokenizer", std::string("plain.json")}}),
              HasSubstr("a token for padding"));
}

}  // namespace
}  // namespace headloom::tasks::span_corruption

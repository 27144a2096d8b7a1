// What a batch may hide from a token: later tokens, padding, other sequences. Every registered
// mechanism takes part.
#include "tests/nn/nn_support.h"

// B batch, T tokens.
namespace headloom::nn {
namespace {

using at::Tensor;
using ::testing::HasSubstr;

class EveryMixer : public ::testing::TestWithParam<std::string> {
 protected:
  TransformerConfig config(bool causal) const {
    TransformerConfig config = small_config();
    config.mixer = GetParam();
    config.causal = causal;
    return config;
  }
};

INSTANTIATE_TEST_SUITE_P(Masks, EveryMixer, ::testing::ValuesIn(mechanism_names()),
                         [](const auto& info) { return info.param; });

TEST(Mechanisms, TheBaselineIsAmongThem) {
  EXPECT_THAT(mechanism_names(), ::testing::Contains("dot_product"));
}

TEST_P(EveryMixer, LaterTokensLeaveEarlierOutputsAsTheyAre) {
  for (const char* norm : {"pre", "post"}) {
    TransformerConfig config = this->config(true);
    config.norm = norm;
    const Built built = build_transformer(config);
    if (!built.model) GTEST_SKIP() << built.refusal;
    const Tensor tokens = random_tokens(2, 19);
    const Tensor expected = built.model->forward(tokens);
    for (const int64_t changed : {1, 7, 8, 18}) {
      Tensor other = tokens.clone();
      other.select(1, changed).add_(1).remainder_(config.vocabulary);
      const Tensor found = built.model->forward(other);
      EXPECT_TRUE(at::equal(found.narrow(1, 0, changed), expected.narrow(1, 0, changed)))
          << "token " << changed;
      EXPECT_FALSE(at::equal(found.select(1, changed), expected.select(1, changed)))
          << "token " << changed;
    }
  }
}

TEST_P(EveryMixer, PaddingChangesNothingForValidTokens) {
  for (const bool causal : {false, true}) {
    const TransformerConfig config = this->config(causal);
    const Built built = build_transformer(config);
    if (!built.model) {
      ASSERT_TRUE(causal) << built.refusal;
      GTEST_SKIP() << built.refusal;
    }
    const std::vector<int64_t> lengths{5, 13, 1};
    const Tensor tokens = random_tokens(3, 13);
    Masks masks;
    masks.key_padding_mask = at::zeros({3, 13}, at::kBool);
    for (int64_t b = 0; b < 3; ++b) {
      masks.key_padding_mask[b].slice(0, lengths[b]).fill_(true);
    }
    const Tensor padded = built.model->forward(tokens, masks);
    for (int64_t b = 0; b < 3; ++b) {
      const Tensor alone = built.model->forward(tokens.narrow(0, b, 1).narrow(1, 0, lengths[b]));
      expect_close(padded.narrow(0, b, 1).narrow(1, 0, lengths[b]), alone, config);
    }
  }
}

TEST_P(EveryMixer, PackedSequencesEqualSeparateOnes) {
  for (const bool causal : {false, true}) {
    for (const char* positions : {"learned", "sinusoidal", "none"}) {
      TransformerConfig config = this->config(causal);
      config.positions = positions;
      const Built built = build_transformer(config);
      if (!built.model) {
        ASSERT_TRUE(causal) << built.refusal;
        GTEST_SKIP() << built.refusal;
      }
      // Together longer than max_length = 32, which bounds each sequence alone.
      const std::vector<int64_t> bounds{0, 3, 3, 20, 21, 40};
      const Tensor tokens = random_tokens(1, 40);
      Masks masks;
      masks.cu_seqlens = at::tensor(bounds, at::kLong);
      const Tensor packed = built.model->forward(tokens, masks);
      for (size_t s = 0; s + 1 < bounds.size(); ++s) {
        const int64_t begin = bounds[s], length = bounds[s + 1] - begin;
        if (length == 0) continue;
        const Tensor alone = built.model->forward(tokens.narrow(1, begin, length));
        expect_close(packed.narrow(1, begin, length), alone, config);
      }
    }
  }
}

TEST(PackedBatch, RefusesWhatItCannotRead) {
  Transformer model(small_config());
  const auto refusal_of = [&](const Tensor& tokens, const Tensor& bounds) {
    Masks masks;
    masks.cu_seqlens = bounds;
    return refusal([&] { model.forward(tokens, masks); });
  };
  const auto bounds = [](std::vector<int64_t> values) { return at::tensor(values, at::kLong); };
  EXPECT_EQ(refusal_of(random_tokens(1, 40), bounds({0, 4, 40})),
            "transformer: expected sequences of at most max_length = 32 tokens; found 36 tokens in "
            "packed sequence 1. Cut the sequence, or build the model with a larger max_length.");
  EXPECT_EQ(refusal_of(random_tokens(2, 4), bounds({0, 4})),
            "transformer: expected B = 1 with cu_seqlens; found B = 2. Concatenate the sequences "
            "along time.");
  EXPECT_THAT(refusal_of(random_tokens(1, 4), bounds({0, 3})),
              HasSubstr("end at the packed length 4"));
  EXPECT_THAT(refusal_of(random_tokens(1, 4), bounds({0, 3, 2, 4})),
              HasSubstr("never to decrease"));
  EXPECT_THAT(refusal_of(random_tokens(1, 4), at::zeros({2})), HasSubstr("int32 or int64"));
}

}  // namespace
}  // namespace headloom::nn

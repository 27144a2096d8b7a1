// Steps against the whole, for every registered mechanism with a causal form.
#include "tests/nn/nn_support.h"

// B batch, T tokens, n new tokens, C model width.
namespace headloom::nn {
namespace {

using at::Tensor;
using ::testing::HasSubstr;

// Runs tokens [B, T] through steps of the given sizes, repeated, the last one cut to fit.
Tensor in_pieces(Transformer& model, const Tensor& tokens, const std::vector<int64_t>& sizes) {
  const torch::NoGradGuard no_grad;
  DecoderState state = model.new_state(tokens.size(0));
  std::vector<Tensor> parts;
  for (size_t i = 0; state.position < tokens.size(1); ++i) {
    const int64_t size = std::min(sizes[i % sizes.size()], tokens.size(1) - state.position);
    parts.push_back(model.step(tokens.narrow(1, state.position, size), state));
  }
  return at::cat(parts, 1);
}

class EveryDecoder : public ::testing::TestWithParam<std::string> {
 protected:
  TransformerConfig config() const {
    TransformerConfig config = causal_config();
    config.mixer = GetParam();
    return config;
  }
};

INSTANTIATE_TEST_SUITE_P(Decoding, EveryDecoder, ::testing::ValuesIn(mechanism_names()),
                         [](const auto& info) { return info.param; });

TEST_P(EveryDecoder, StepsEqualTheWhole) {
  for (const char* norm : {"pre", "post"}) {
    for (const char* positions : {"learned", "sinusoidal", "none"}) {
      TransformerConfig config = this->config();
      config.norm = norm;
      config.positions = positions;
      const Built built = build_transformer(config);
      if (!built.model) GTEST_SKIP() << built.refusal;
      const Tensor tokens = random_tokens(3, 32);
      const Tensor expected = built.model->forward(tokens);
      for (const std::vector<int64_t>& sizes :
           std::vector<std::vector<int64_t>>{{1}, {2}, {3}, {32}, {5, 1, 1, 4}, {17, 1}}) {
        SCOPED_TRACE(cat(norm, " ", positions, " pieces of ", at::IntArrayRef(sizes)));
        expect_close(in_pieces(*built.model, tokens, sizes), expected, config);
      }
    }
  }
}

TEST_P(EveryDecoder, StepsEqualTheWholeInSinglePrecision) {
  const TransformerConfig config = this->config();
  const Built built = build_transformer(config);
  if (!built.model) GTEST_SKIP() << built.refusal;
  built.model->to(at::kFloat);
  const Tensor tokens = random_tokens(2, 29);
  expect_close(in_pieces(*built.model, tokens, {4, 1}), built.model->forward(tokens), config);
}

TEST_P(EveryDecoder, ReorderedStateContinuesTheChosenRows) {
  const TransformerConfig config = this->config();
  const Built built = build_transformer(config);
  if (!built.model) GTEST_SKIP() << built.refusal;
  const Tensor seen = random_tokens(3, 9), index = at::tensor({2, 0, 2, 1}, at::kLong);
  const Tensor next = random_tokens(4, 4);
  DecoderState state = built.model->new_state(3);
  built.model->step(seen, state);
  state.reorder(index);
  EXPECT_EQ(state.batch, 4);
  const Tensor found = at::cat({built.model->step(next.narrow(1, 0, 1), state),
                                built.model->step(next.narrow(1, 1, 3), state)},
                               1);
  const Tensor whole = at::cat({seen.index_select(0, index), next}, 1);
  expect_close(found, built.model->forward(whole).narrow(1, 9, 4), config);
}

TEST_P(EveryDecoder, StateReportsItsLengthAndMemory) {
  const Built built = build_transformer(config());
  if (!built.model) GTEST_SKIP() << built.refusal;
  DecoderState state = built.model->new_state(2);
  built.model->step(random_tokens(2, 5), state);
  EXPECT_EQ(state.position, 5);
  int64_t bytes = 0;
  for (const auto& layer : state.layers) {
    EXPECT_EQ(layer->length(), 5);
    bytes += layer->bytes();
  }
  EXPECT_GT(bytes, 0);
  EXPECT_EQ(state.bytes(), bytes);
}

TEST_P(EveryDecoder, EmptyPiecesAndBatchesWork) {
  const Built built = build_transformer(config());
  if (!built.model) GTEST_SKIP() << built.refusal;
  DecoderState state = built.model->new_state(2);
  const Tensor tokens = random_tokens(2, 3);
  built.model->step(tokens.narrow(1, 0, 2), state);
  EXPECT_EQ(built.model->step(random_tokens(2, 0), state).sizes(),
            (std::vector<int64_t>{2, 0, 16}));
  EXPECT_EQ(state.position, 2);
  expect_close(built.model->step(tokens.narrow(1, 2, 1), state),
               built.model->forward(tokens).narrow(1, 2, 1), config());
  DecoderState nobody = built.model->new_state(0);
  EXPECT_EQ(built.model->step(random_tokens(0, 3), nobody).sizes(),
            (std::vector<int64_t>{0, 3, 16}));
}

TEST(Decoding, RefusesToPassTheMaximumLengthAndKeepsTheState) {
  Transformer model(causal_config());
  DecoderState state = model.new_state(1);
  model.step(random_tokens(1, 30), state);
  EXPECT_EQ(refusal([&] { model.step(random_tokens(1, 3), state); }),
            "transformer: expected sequences of at most max_length = 32 tokens; found 30 tokens "
            "seen and 3 new ones. Cut the sequence, or build the model with a larger max_length.");
  EXPECT_EQ(state.position, 30);
  EXPECT_EQ(state.layers[0]->length(), 30);
  EXPECT_NO_THROW(model.step(random_tokens(1, 2), state));
}

TEST(Decoding, RefusesABidirectionalModel) {
  EXPECT_EQ(refusal([] { Transformer(small_config()).new_state(1); }),
            "transformer: expected a causal model to decode with; found a bidirectional one. Build "
            "it with causal = true.");
}

TEST(Decoding, RefusesAStateThatDoesNotFit) {
  Transformer model(causal_config());
  DecoderState state = model.new_state(2);
  EXPECT_THAT(refusal([&] { model.step(random_tokens(3, 1), state); }),
              HasSubstr("tokens of the 2 rows of the state; found shape [3, 1]"));
  DecoderState empty;
  EXPECT_THAT(refusal([&] { model.step(random_tokens(0, 1), empty); }),
              HasSubstr("a state of 2 layers, as new_state() makes; found 0 layers"));
  EXPECT_THAT(refusal([&] { model.new_state(-1); }), HasSubstr("found -1"));
}

TEST(Decoding, RefusesAnIndexThatIsNone) {
  Transformer model(causal_config());
  DecoderState state = model.new_state(2);
  EXPECT_EQ(refusal([&] {
              state.reorder(at::tensor({0, 2}, at::kLong));
            }),
            "decoder state: expected rows in [0, 2); found rows from 0 to 2.");
  EXPECT_THAT(refusal([&] { state.reorder(at::zeros({2})); }),
              HasSubstr("index of shape [B'] and dtype int64; found shape [2], Float"));
}

}  // namespace
}  // namespace headloom::nn

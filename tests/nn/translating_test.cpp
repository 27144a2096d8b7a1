// Whole translations of every registered mechanism: steps, beams, padding, gradients.
// B batch, S source tokens, T target tokens, C model width, V target vocabulary.
#include "tests/nn/encoder_decoder_support.h"

namespace headloom::nn {
namespace {

using at::Tensor;
using ::testing::HasSubstr;

Tensor in_pieces(EncoderDecoder& model, const Memory& memory, const Tensor& target,
                 const std::vector<int64_t>& sizes) {
  const torch::NoGradGuard no_grad;
  DecoderState state = model.new_state(memory);
  std::vector<Tensor> parts;
  for (size_t i = 0; state.position < target.size(1); ++i) {
    const int64_t size = std::min(sizes[i % sizes.size()], target.size(1) - state.position);
    parts.push_back(model.step(target.narrow(1, state.position, size), state));
  }
  return at::cat(parts, 1);
}

class EveryTranslator : public ::testing::TestWithParam<std::string> {
 protected:
  EncoderDecoderConfig config(const char* norm = "post") const {
    EncoderDecoderConfig config = small_translator();
    config.norm = norm;
    config.encoder_mixer.name = config.decoder_mixer.name = GetParam();
    return config;
  }
};

INSTANTIATE_TEST_SUITE_P(EncoderDecoder, EveryTranslator, ::testing::ValuesIn(mechanism_names()),
                         [](const auto& info) { return info.param; });

TEST_P(EveryTranslator, StepsEqualTheWhole) {
  for (const char* norm : {"pre", "post"}) {
    for (const char* positions : {"learned", "sinusoidal", "none"}) {
      EncoderDecoderConfig config = this->config(norm);
      config.positions = positions;
      const BuiltTranslator built = build_translator(config);
      if (!built.model) GTEST_SKIP() << built.refusal;
      const Tensor target = random_tokens(3, 32);
      const Memory memory = built.model->encode(random_tokens(3, 9, 13),
                                                mask_of({".........", ".......xx", "x........"}));
      const Tensor expected = built.model->decode(target, memory);
      for (const std::vector<int64_t>& sizes :
           std::vector<std::vector<int64_t>>{{1}, {32}, {5, 1, 1, 4}, {17, 1}}) {
        SCOPED_TRACE(cat(norm, " ", positions, " pieces of ", at::IntArrayRef(sizes)));
        expect_close(in_pieces(*built.model, memory, target, sizes), expected, depth_of(config));
      }
    }
  }
}

TEST_P(EveryTranslator, ReorderedStateContinuesTheChosenRows) {
  const EncoderDecoderConfig config = this->config();
  const BuiltTranslator built = build_translator(config);
  if (!built.model) GTEST_SKIP() << built.refusal;
  const torch::NoGradGuard no_grad;
  const Tensor index = at::tensor({2, 0, 2, 1}, at::kLong);
  const Tensor source = random_tokens(3, 7, 13),
               padding = mask_of({".......", ".....xx", "......x"});
  const Tensor seen = random_tokens(3, 9), next = random_tokens(4, 4);
  DecoderState state = built.model->new_state(built.model->encode(source, padding));
  built.model->step(seen, state);
  EXPECT_GT(state.bytes(), 0);
  state.reorder(index);
  EXPECT_EQ(state.batch, 4);
  const Tensor found = at::cat({built.model->step(next.narrow(1, 0, 1), state),
                                built.model->step(next.narrow(1, 1, 3), state)},
                               1);
  const Tensor whole = at::cat({seen.index_select(0, index), next}, 1);
  const Tensor expected =
      built.model->forward(source.index_select(0, index), whole, padding.index_select(0, index));
  expect_close(found, expected.narrow(1, 9, 4), depth_of(config));
}

TEST_P(EveryTranslator, SourcePaddingChangesNothing) {
  for (const char* norm : {"pre", "post"}) {
    const EncoderDecoderConfig config = this->config(norm);
    const BuiltTranslator built = build_translator(config);
    if (!built.model) GTEST_SKIP() << built.refusal;
    const torch::NoGradGuard no_grad;
    const Tensor source = random_tokens(2, 8, 13), target = random_tokens(2, 6);
    const Tensor padding = mask_of({"......xx", "....xxxx"});
    const Tensor padded = built.model->forward(source, target, padding);
    const Tensor other = source.masked_fill(padding, 3);
    EXPECT_TRUE(at::equal(built.model->forward(other, target, padding), padded));
    for (const auto& [row, length] : {std::pair{0, 6}, std::pair{1, 4}}) {
      const Tensor alone = built.model->forward(source.narrow(0, row, 1).narrow(1, 0, length),
                                                target.narrow(0, row, 1));
      expect_close(padded.narrow(0, row, 1), alone, depth_of(config));
    }
  }
}

TEST_P(EveryTranslator, GradientsReachEveryParameter) {
  for (const char* norm : {"pre", "post"}) {
    EncoderDecoderConfig config = this->config(norm);
    config.max_length = 9;
    config.positions = "learned";
    config.tie_output = false;
    const BuiltTranslator built = build_translator(config);
    if (!built.model) GTEST_SKIP() << built.refusal;
    const Tensor out = built.model->forward(random_tokens(4, 9, 13), random_tokens(4, 9));
    (out * at::randn_like(out)).sum().backward();
    for (const auto& parameter : built.model->named_parameters()) {
      const Tensor& grad = parameter.value().grad();
      ASSERT_TRUE(grad.defined()) << norm << " " << parameter.key();
      EXPECT_TRUE(grad.isfinite().all().item<bool>()) << parameter.key();
      // A bias of the keys shifts all logits of a row alike: its gradient is rounding or 0.
      if (parameter.key().find("k_proj.bias") == std::string::npos) {
        EXPECT_GT(grad.abs().sum().item<double>(), 0.0) << norm << " " << parameter.key();
      }
    }
  }
}

// Convolutions and plain attention do not care where a sentence starts.
TEST(EncoderDecoder, PaddingOnTheLeftChangesNothing) {
  for (const char* name : {"dot_product", "light_conv", "dynamic_conv"}) {
    for (const char* positions : {"learned", "sinusoidal", "none"}) {
      EncoderDecoderConfig config = small_translator();
      config.encoder_mixer.name = config.decoder_mixer.name = name;
      config.positions = positions;
      const auto model = build_translator(config).model;
      const torch::NoGradGuard no_grad;
      const Tensor source = random_tokens(1, 6, 13), target = random_tokens(1, 5);
      const Tensor expected = model->forward(source, target);
      const Tensor left = at::cat({random_tokens(1, 3, 13), source}, 1);
      expect_close(model->forward(left, target, mask_of({"xxx......"})), expected,
                   depth_of(config));
      const Tensor both = at::cat({random_tokens(1, 2, 13), source, random_tokens(1, 2, 13)}, 1);
      expect_close(model->forward(both, target, mask_of({"xx......xx"})), expected,
                   depth_of(config));
    }
  }
}

TEST(EncoderDecoder, NoTokenSeesALaterOne) {
  for (const char* name : {"dot_product", "light_conv", "dynamic_conv"}) {
    EncoderDecoderConfig config = small_translator();
    config.decoder_mixer.name = name;
    const auto model = build_translator(config).model;
    const torch::NoGradGuard no_grad;
    const Tensor source = random_tokens(2, 5, 13), target = random_tokens(2, 8);
    const Tensor before = model->forward(source, target);
    Tensor changed = target.clone();
    changed.narrow(1, 5, 3).add_(1).remainder_(11);
    const Tensor after = model->forward(source, changed);
    EXPECT_TRUE(at::equal(after.narrow(1, 0, 5), before.narrow(1, 0, 5))) << name;
    EXPECT_FALSE(at::equal(after.select(1, 5), before.select(1, 5))) << name;
  }
}

// A mechanism that keeps nothing of its own falls back on the memory itself.
class PlainCross : public TokenMixer {
 public:
  Tensor forward(const Tensor& x, const Masks&) override { return x; }
  Tensor cross(const Tensor& x, const Tensor& memory, const Tensor& padding) override {
    const Tensor kept = padding.defined() ? memory.masked_fill(padding.unsqueeze(-1), 0.0) : memory;
    return x + kept.sum(1, true);
  }
  std::unique_ptr<MixerState> new_state(int64_t) const override { return nullptr; }
  Tensor step(const Tensor& x, MixerState&) override { return x; }
  double flops(int64_t) const override { return 0.0; }
};

TEST(CrossState, TheMemoryItselfIsTheDefault) {
  PlainCross mixer;
  const Tensor x = at::randn({2, 3, 4}), memory = at::randn({2, 5, 4});
  const Tensor padding = mask_of({".....", "...xx"}), index = at::tensor({1, 1, 0}, at::kLong);
  const auto state = mixer.new_cross_state(memory, padding);
  EXPECT_EQ(state->length(), 5);
  EXPECT_EQ(state->bytes(), 2 * 5 * 4 * 4 + 2 * 5);
  EXPECT_TRUE(at::equal(mixer.cross_step(x, *state), mixer.cross(x, memory, padding)));
  state->reorder(index);
  const Tensor rows = x.index_select(0, index);
  EXPECT_TRUE(
      at::equal(mixer.cross_step(rows, *state),
                mixer.cross(rows, memory.index_select(0, index), padding.index_select(0, index))));
}

TEST(CrossState, OfAnotherMechanismIsRefused) {
  MixerConfig config;
  config.dim = 4;
  config.heads = 2;
  const auto attention = make_mixer("dot_product", config, {});
  PlainCross plain;
  const Tensor x = at::randn({1, 1, 4});
  const auto theirs = attention->new_cross_state(x, {}), ours = plain.new_cross_state(x, {});
  EXPECT_THAT(refusal([&] { attention->cross_step(x, *ours); }),
              HasSubstr("mixer dot_product: expected a state of its own new_cross_state()"));
  EXPECT_THAT(refusal([&] { plain.cross_step(x, *theirs); }),
              HasSubstr("a state of its own new_cross_state()"));
  EXPECT_EQ(theirs->length(), 1);
}

}  // namespace
}  // namespace headloom::nn

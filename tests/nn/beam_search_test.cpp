// N sentences, S source tokens, T target tokens, V target vocabulary.
#include "headloom/nn/beam_search.h"

#include <algorithm>
#include <cmath>

#include "headloom/nn/beam_candidates.h"
#include "tests/nn/encoder_decoder_support.h"
#include "tests/support/closeness.h"

namespace headloom::nn {
namespace {

using at::Tensor;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Tokens = std::vector<int64_t>;

constexpr int64_t kBegin = 0, kEnd = 1, kPad = 2;

TargetTokens target_tokens() {
  return {kBegin, kEnd, {kBegin, kPad}};
}

std::shared_ptr<EncoderDecoder> translator(int64_t vocabulary = 11,
                                           const std::string& mechanism = "dot_product") {
  EncoderDecoderConfig config = small_translator();
  config.target_vocabulary = vocabulary;
  config.encoder_mixer.name = config.decoder_mixer.name = mechanism;
  return build_translator(config).model;
}

// log P(tokens, end) by the whole model, or without the end.
double log_probability(EncoderDecoder& model, const Tensor& source, Tokens tokens,
                       bool with_end = true) {
  const torch::NoGradGuard no_grad;
  Tokens inputs{kBegin};
  inputs.insert(inputs.end(), tokens.begin(), tokens.end());
  if (with_end) tokens.push_back(kEnd);
  if (tokens.empty()) return 0.0;
  if (!with_end) inputs.pop_back();
  const Tensor logits = model.forward(source, at::tensor(inputs, at::kLong).unsqueeze(0));
  const Tensor chosen = at::tensor(tokens, at::kLong).unsqueeze(1);
  return at::log_softmax(logits[0], 1).gather(1, chosen).sum().item<double>();
}

// Every translation of at most `longest` tokens, best first.
std::vector<Hypothesis> all_translations(EncoderDecoder& model, const Tensor& source,
                                         const BeamOptions& options, int64_t longest) {
  std::vector<Hypothesis> found;
  std::vector<Tokens> open{{}};
  for (size_t i = 0; i < open.size(); ++i) {
    const Tokens tokens = open[i];
    const auto length = static_cast<int64_t>(tokens.size());
    Hypothesis hypothesis{tokens, log_probability(model, source, tokens), 0.0};
    hypothesis.score = hypothesis.log_probability / length_penalty(options, length + 1);
    found.push_back(hypothesis);
    if (length == longest) continue;
    for (int64_t token = kPad + 1; token < model.config().target_vocabulary; ++token) {
      open.push_back(tokens);
      open.back().push_back(token);
    }
  }
  std::sort(found.begin(), found.end(),
            [](const Hypothesis& a, const Hypothesis& b) { return a.score > b.score; });
  return found;
}

void expect_near(double found, double expected) {
  const auto difference = headloom::testing::differs_from_golden(
      at::scalar_tensor(found, at::kDouble), at::scalar_tensor(expected, at::kDouble));
  EXPECT_FALSE(difference) << *difference;
}

void expect_same(const std::vector<std::vector<Hypothesis>>& found,
                 const std::vector<std::vector<Hypothesis>>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    ASSERT_EQ(found[i].size(), expected[i].size()) << "sentence " << i;
    for (size_t n = 0; n < found[i].size(); ++n) {
      EXPECT_EQ(found[i][n].tokens, expected[i][n].tokens) << "sentence " << i << ", " << n;
      expect_near(found[i][n].score, expected[i][n].score);
      expect_near(found[i][n].log_probability, expected[i][n].log_probability);
    }
  }
}

TEST(BeamSearch, AWideBeamFindsWhatEnumerationFinds) {
  const auto model = translator(6);  // three tokens to write
  for (const LengthPenalty penalty : {LengthPenalty::kGnmt, LengthPenalty::kAverage}) {
    for (const double alpha : {0.0, 0.6, 1.0, 1.7}) {
      BeamOptions options;
      options.beam = 64;  // more than the 27 + 9 + 3 + 1 translations
      options.n_best = 40;
      options.length_penalty = penalty;
      options.alpha = alpha;
      options.length_extra = 3;
      const Tensor source = random_tokens(2, 5, 13);
      const auto found = beam_search(*model, source, {}, target_tokens(), options);
      std::vector<std::vector<Hypothesis>> expected;
      for (int64_t i = 0; i < 2; ++i) {
        expected.push_back(all_translations(*model, source.narrow(0, i, 1), options, 3));
        EXPECT_EQ(expected.back().size(), 40u);
      }
      expect_same(found, expected);
    }
  }
}

TEST(BeamSearch, BeamOfOneIsGreedy) {
  const auto model = translator();
  const torch::NoGradGuard no_grad;
  BeamOptions options;
  options.beam = 1;
  options.length_extra = 12;
  const Tensor source = random_tokens(6, 5, 13);
  const auto found = beam_search(*model, source, {}, target_tokens(), options);
  for (int64_t i = 0; i < 6; ++i) {
    Tokens inputs{kBegin};
    while (inputs.size() <= 12) {
      const Tensor target = at::tensor(inputs, at::kLong).unsqueeze(0);
      Tensor logits = model->forward(source.narrow(0, i, 1), target)[0][-1].clone();
      for (const int64_t never : {kBegin, kPad}) logits[never] = -INFINITY;
      const auto token = logits.argmax().item<int64_t>();
      if (token == kEnd) break;
      inputs.push_back(token);
    }
    ASSERT_EQ(found[i].size(), 1u);
    EXPECT_EQ(found[i][0].tokens, Tokens(inputs.begin() + 1, inputs.end())) << i;
  }
}

class BeamSearchOf : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(BeamSearch, BeamSearchOf, ::testing::ValuesIn(mechanism_names()),
                         [](const auto& info) { return info.param; });

TEST_P(BeamSearchOf, StatesBatchesAndPaddingChangeNothing) {
  const auto model = translator(11, GetParam());
  if (!model) GTEST_SKIP() << "no causal form";
  const Tensor source = random_tokens(5, 9, 13);
  const Tensor padding = mask_of({".........", "....xxxxx", ".xxxxxxxx", "......xxx", "........x"});
  BeamOptions options;
  options.beam = 4;
  options.n_best = 4;
  options.length_ratio = 1.5;
  options.length_extra = 3;
  const auto found = beam_search(*model, source, padding, target_tokens(), options);
  options.cache = false;
  expect_same(beam_search(*model, source, padding, target_tokens(), options), found);
  options.cache = true;
  std::vector<std::vector<Hypothesis>> alone;
  for (const auto& [row, length] :
       std::vector<std::pair<int64_t, int64_t>>{{0, 9}, {1, 4}, {2, 1}, {3, 6}, {4, 8}}) {
    const Tensor sentence = source.narrow(0, row, 1).narrow(1, 0, length);
    alone.push_back(beam_search(*model, sentence, {}, target_tokens(), options)[0]);
  }
  expect_same(found, alone);
}

TEST(BeamSearch, ScoresAreThoseOfTheModel) {
  const auto model = translator();
  BeamOptions options;
  options.beam = options.n_best = 3;
  options.length_penalty = LengthPenalty::kGnmt;
  options.alpha = 0.7;
  options.length_extra = 8;
  const Tensor source = random_tokens(1, 6, 13);
  const auto found = beam_search(*model, source, {}, target_tokens(), options)[0];
  ASSERT_EQ(found.size(), 3u);
  for (const Hypothesis& hypothesis : found) {
    const double expected = log_probability(*model, source, hypothesis.tokens);
    expect_near(hypothesis.log_probability, expected);
    const double length = static_cast<double>(hypothesis.tokens.size()) + 1.0;
    expect_near(hypothesis.score, expected / std::pow((5.0 + length) / 6.0, 0.7));
  }
  EXPECT_GE(found[0].score, found[1].score);
  EXPECT_GE(found[1].score, found[2].score);
}

TEST(BeamSearch, LengthsStayWithinTheirBounds) {
  const auto model = translator();
  BeamOptions options;
  options.beam = options.n_best = 4;
  options.min_length = 3;
  options.length_ratio = 1.0;
  options.length_extra = 2;
  const Tensor source = random_tokens(8, 4, 13);
  for (const auto& sentence : beam_search(*model, source, {}, target_tokens(), options)) {
    EXPECT_THAT(sentence, Not(IsEmpty()));
    for (const Hypothesis& hypothesis : sentence) {
      EXPECT_GE(hypothesis.tokens.size(), 3u);
      EXPECT_LE(hypothesis.tokens.size(), 6u);
      for (const int64_t token : hypothesis.tokens) EXPECT_GT(token, kPad);
    }
  }
  options.min_length = 0;
  options.length_extra = 1000;  // the model holds 32 positions, the begin's among them
  for (const auto& sentence : beam_search(*model, source, {}, target_tokens(), options)) {
    for (const Hypothesis& hypothesis : sentence) EXPECT_LE(hypothesis.tokens.size(), 31u);
  }
  options.length_ratio = 0.0;
  options.length_extra = 0;
  const auto empty = beam_search(*model, source, {}, target_tokens(), options);
  EXPECT_THAT(empty[0], testing::SizeIs(1));
  EXPECT_THAT(empty[0][0].tokens, IsEmpty());
}

TEST(BeamSearch, PrefixesAreKeptAndScored) {
  const auto model = translator();
  BeamOptions options;
  options.beam = options.n_best = 3;
  options.length_extra = 6;
  const Tensor source = random_tokens(3, 4, 13);
  const std::vector<Tokens> prefixes{{5, 7}, {}, {9, 9, 9, 4, 4, 4, 4}};
  const auto found = beam_search(*model, source, {}, target_tokens(), options, prefixes);
  for (size_t i = 0; i < 3; ++i) {
    ASSERT_THAT(found[i], Not(IsEmpty()));
    for (const Hypothesis& hypothesis : found[i]) {
      const Tokens& tokens = hypothesis.tokens;
      ASSERT_GE(tokens.size(), prefixes[i].size());
      EXPECT_TRUE(std::equal(prefixes[i].begin(), prefixes[i].end(), tokens.begin()));
      expect_near(hypothesis.log_probability,
                  log_probability(*model, source.narrow(0, static_cast<int64_t>(i), 1), tokens));
    }
  }
  EXPECT_THAT(found[2], testing::SizeIs(1)) << "a prefix beyond the limit is all there is";
  EXPECT_EQ(found[2][0].tokens, prefixes[2]);
  const auto plain = beam_search(*model, source, {}, target_tokens(), options);
  expect_same({found[1]}, {plain[1]});
  options.cache = false;
  expect_same(beam_search(*model, source, {}, target_tokens(), options, prefixes), found);
}

bool repeats(const Tokens& tokens, size_t n) {
  for (size_t i = 0; i + n <= tokens.size(); ++i) {
    for (size_t j = i + 1; j + n <= tokens.size(); ++j) {
      if (std::equal(tokens.begin() + i, tokens.begin() + i + n, tokens.begin() + j)) return true;
    }
  }
  return false;
}

TEST(BeamSearch, NoNgramTwiceWhenAsked) {
  const auto model = translator(6);
  BeamOptions options;
  options.beam = 3;
  options.length_extra = 20;
  options.min_length = 12;
  const Tensor source = random_tokens(4, 4, 13);
  bool any = false;
  for (const auto& sentence : beam_search(*model, source, {}, target_tokens(), options)) {
    any = any || repeats(sentence.at(0).tokens, 3);
  }
  EXPECT_TRUE(any) << "three tokens in a dozen places: something repeats when nothing forbids it";
  options.no_repeat_ngram = 3;
  for (const auto& sentence : beam_search(*model, source, {}, target_tokens(), options)) {
    EXPECT_FALSE(repeats(sentence.at(0).tokens, 3));
  }
  EXPECT_THAT(repeating_tokens({4, 5, 4, 6, 4}, 2), ElementsAre(5, 6));
  EXPECT_THAT(repeating_tokens({4, 5, 4}, 1), ElementsAre(4, 5, 4));
  EXPECT_THAT(repeating_tokens({4, 5}, 4), IsEmpty());
  EXPECT_THAT(repeating_tokens({4, 5}, 0), IsEmpty());
}

TEST(BeamSearch, NothingToTranslateIsNothing) {
  const auto model = translator();
  EXPECT_THAT(beam_search(*model, at::zeros({0, 3}, at::kLong), {}, target_tokens(), {}),
              IsEmpty());
}

TEST(BeamSearch, LeavesTheModelInItsMode) {
  const auto model = translator();
  model->train();
  beam_search(*model, random_tokens(1, 3, 13), {}, target_tokens(), {});
  EXPECT_TRUE(model->is_training());
}

TEST(BeamSearch, RefusesWhatCannotBe) {
  const auto model = translator();
  const Tensor source = random_tokens(2, 4, 13);
  const auto refused = [&](const std::function<void(BeamOptions&)>& change) {
    BeamOptions options;
    change(options);
    return refusal([&] { beam_search(*model, source, {}, target_tokens(), options); });
  };
  EXPECT_EQ(refused([](auto& o) { o.beam = 0; }),
            "beam search: expected beam of at least 1; found beam = 0.");
  EXPECT_THAT(refused([](auto& o) { o.n_best = 0; }), HasSubstr("n_best of at least 1"));
  EXPECT_THAT(refused([](auto& o) { o.n_best = 6; }),
              HasSubstr("n_best up to beam = 5; found n_best = 6. Raise beam."));
  EXPECT_THAT(refused([](auto& o) { o.min_length = -1; }), HasSubstr("min_length = -1"));
  EXPECT_THAT(refused([](auto& o) { o.length_extra = -1; }), HasSubstr("length_extra = -1"));
  EXPECT_THAT(refused([](auto& o) { o.length_ratio = NAN; }), HasSubstr("length_ratio = nan"));
  EXPECT_THAT(refused([](auto& o) { o.no_repeat_ngram = -2; }), HasSubstr("no_repeat_ngram = -2"));
  EXPECT_THAT(refused([](auto& o) { o.alpha = INFINITY; }), HasSubstr("a finite alpha"));
  const auto refused_prefix = [&](const std::vector<Tokens>& prefixes) {
    return refusal([&] { beam_search(*model, source, {}, target_tokens(), {}, prefixes); });
  };
  EXPECT_THAT(refused_prefix({{3}}), HasSubstr("one prefix for each of 2 sentences, or none"));
  EXPECT_THAT(refused_prefix({{3}, {kEnd}}), HasSubstr("a prefix without the end"));
  EXPECT_THAT(refused_prefix({{3}, {11}}), HasSubstr("in [0, 11); found 11"));
  EXPECT_THAT(refused_prefix({{3}, Tokens(32, 4)}), HasSubstr("at most 31 tokens"));
  EXPECT_THAT(refusal([&] { beam_search(*model, source[0], {}, target_tokens(), {}); }),
              HasSubstr("a source of shape [N, S]"));
  EXPECT_THAT(refusal([&] {
                beam_search(*model, source, {}, {kBegin, 11, {}}, {});
              }),
              HasSubstr("an end in [0, 11)"));
  const torch::NoGradGuard no_grad;
  model->parameters()[0].fill_(NAN);
  EXPECT_THAT(refusal([&] { beam_search(*model, source, {}, target_tokens(), {}); }),
              HasSubstr("finite logits; found NaN"));
}

TEST(DecoderState, ReordersHypothesesOfTheSameMemory) {
  const auto model = translator();
  const torch::NoGradGuard no_grad;
  const Memory memory = model->encode(random_tokens(1, 5, 13).expand({3, 5}));
  const Tensor seen = random_tokens(3, 4), next = random_tokens(3, 1);
  const Tensor index = at::tensor({2, 2, 0}, at::kLong);
  DecoderState whole = model->new_state(memory), within = model->new_state(memory);
  model->step(seen, whole);
  model->step(seen, within);
  whole.reorder(index);
  within.reorder_within(index);
  expect_close(model->step(next, within), model->step(next, whole), depth_of(model->config()));
  EXPECT_THAT(refusal([&] {
                within.reorder_within(at::tensor({0, 1}, at::kLong));
              }),
              HasSubstr("an index of 3 rows; found shape [2]"));
}

TEST(EncoderDecoder, LogitsOfWholeTargetsAreThoseOfSteps) {
  const auto model = translator();
  const torch::NoGradGuard no_grad;
  const Memory memory = model->encode(random_tokens(2, 5, 13));
  const Tensor target = random_tokens(2, 4);
  expect_close(model->next_logits(target, memory), model->decode(target, memory).select(1, 3),
               depth_of(model->config()));
  EXPECT_THAT(refusal([&] { model->next_logits(random_tokens(2, 0), memory); }),
              HasSubstr("T at least 1"));
  EXPECT_GT(model->flops(16), 2 * model->flops(8)) << "attention grows with the square";
}

}  // namespace
}  // namespace headloom::nn

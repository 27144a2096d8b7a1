#include "tests/nn/nn_support.h"

namespace headloom::nn {
namespace {

using ::testing::HasSubstr;

std::string refusal_of(const std::function<void(TransformerConfig&)>& change) {
  TransformerConfig config = small_config();
  change(config);
  return refusal([&] { check_config(config); });
}

TEST(TransformerConfig, DefaultsWithAVocabularyAreAccepted) {
  TransformerConfig config;
  config.vocabulary = 256;
  EXPECT_NO_THROW(check_config(config));
  EXPECT_NO_THROW(check_config(small_config()));
}

TEST(TransformerConfig, RefusesSizesBelowOneByName) {
  EXPECT_EQ(refusal_of([](auto& c) { c.vocabulary = 0; }),
            "transformer: expected vocabulary of at least 1; found vocabulary = 0.");
  EXPECT_THAT(refusal_of([](auto& c) { c.dim = 0; }), HasSubstr("dim = 0"));
  EXPECT_THAT(refusal_of([](auto& c) { c.layers = 0; }), HasSubstr("layers = 0"));
  EXPECT_THAT(refusal_of([](auto& c) { c.heads = -1; }), HasSubstr("heads = -1"));
  EXPECT_THAT(refusal_of([](auto& c) { c.ffn = 0; }), HasSubstr("ffn = 0"));
  EXPECT_THAT(refusal_of([](auto& c) { c.max_length = 0; }), HasSubstr("max_length = 0"));
  EXPECT_THAT(refusal_of([](auto& c) { c.segments = -1; }), HasSubstr("segments = -1"));
  EXPECT_THAT(refusal_of([](auto& c) { c.norm_eps = 0.0; }), HasSubstr("norm_eps = 0"));
}

TEST(TransformerConfig, RefusesHeadsThatDoNotDivideTheWidth) {
  EXPECT_EQ(refusal_of([](auto& c) { c.heads = 3; }),
            "transformer: expected heads to divide dim; found dim = 16, heads = 3.");
}

TEST(TransformerConfig, RefusesProbabilitiesOutsideTheirRange) {
  EXPECT_EQ(refusal_of([](auto& c) { c.dropout = 1.0; }),
            "transformer: expected dropout in [0, 1); found dropout = 1.");
  EXPECT_THAT(refusal_of([](auto& c) { c.dropout = -0.1; }), HasSubstr("dropout = -0.1"));
  EXPECT_THAT(refusal_of([](auto& c) { c.dropout = std::nan(""); }),
              HasSubstr("dropout in [0, 1)"));
  EXPECT_THAT(refusal_of([](auto& c) { c.mixing_dropout = 2.0; }),
              HasSubstr("mixing_dropout in [0, 1); found mixing_dropout = 2"));
}

TEST(TransformerConfig, RefusesUnknownWordsAndNamesTheNearest) {
  EXPECT_EQ(refusal_of([](auto& c) { c.norm = "prr"; }),
            "transformer: expected norm to be one of pre, post; found \"prr\". Did you mean "
            "\"pre\"?");
  EXPECT_THAT(refusal_of([](auto& c) { c.positions = "sinusoid"; }),
              HasSubstr("learned, sinusoidal, none; found \"sinusoid\". Did you mean "
                        "\"sinusoidal\"?"));
  EXPECT_THAT(refusal_of([](auto& c) { c.activation = "gel"; }), HasSubstr("\"gelu\"?"));
  EXPECT_THAT(refusal_of([](auto& c) { c.mixer = "dot_produkt"; }), HasSubstr("\"dot_product\"?"));
}

TEST(TransformerConfig, TheModelRefusesWhatTheCheckRefuses) {
  TransformerConfig config = small_config();
  config.norm = "sandwich";
  EXPECT_THAT(refusal([&] { Transformer model(config); }), HasSubstr("norm to be one of"));
}

TEST(TransformerConfig, TheModelRefusesOptionsThatItsMixerDoesNotKnow) {
  TransformerConfig config = small_config();
  config.mixer_options = {{"biass", false}};
  EXPECT_THAT(refusal([&] { Transformer model(config); }),
              HasSubstr("biass = false. Did you mean \"bias\"?"));
}

}  // namespace
}  // namespace headloom::nn

// Equal to sacreBLEU, whose figures are in tests/golden/text.json.
#include "headloom/text/scoring.h"

#include "headloom/text/bleu.h"
#include "headloom/text/chrf.h"
#include "tests/text/support.h"

namespace headloom::text {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

BleuOptions bleu_options(const nlohmann::json& wanted) {
  BleuOptions options;
  if (wanted.value("tokenize", "13a") == "none") options.tokenizer = BleuTokenizer::kNone;
  options.lowercase = wanted.value("lowercase", false);
  options.effective_order = wanted.value("effective_order", false);
  const std::string smoothing = wanted.value("smooth_method", "exp");
  if (smoothing == "none") options.smoothing = Smoothing::kNone;
  if (smoothing == "floor") options.smoothing = Smoothing::kFloor;
  if (smoothing == "add-k") options.smoothing = Smoothing::kAddK;
  if (wanted.contains("smooth_value")) options.smooth_value = wanted["smooth_value"].get<double>();
  return options;
}

TEST(Bleu, IsSacrebleus) {
  for (const auto& wanted : golden()["bleu"]) {
    const BleuOptions options = bleu_options(wanted["options"]);
    const auto references = wanted["references"].get<std::vector<Segments>>();
    const Bleu result = bleu(wanted["hypotheses"].get<Segments>(), references, options);
    EXPECT_DOUBLE_EQ(result.score, wanted["score"].get<double>()) << wanted;
    EXPECT_EQ(result.details(), wanted["details"].get<std::string>());
    EXPECT_EQ(signature(options, references.size()), wanted["signature"].get<std::string>());
  }
}

TEST(Chrf, IsSacrebleus) {
  for (const auto& wanted : golden()["chrf"]) {
    ChrfOptions options;
    options.word_order = wanted["options"].value("word_order", 0);
    options.lowercase = wanted["options"].value("lowercase", false);
    options.whitespace = wanted["options"].value("whitespace", false);
    const auto references = wanted["references"].get<std::vector<Segments>>();
    EXPECT_DOUBLE_EQ(chrf(wanted["hypotheses"].get<Segments>(), references, options),
                     wanted["score"].get<double>())
        << wanted;
    EXPECT_EQ(chrf_name(options), wanted["name"].get<std::string>());
    EXPECT_EQ(signature(options, references.size()), wanted["signature"].get<std::string>());
  }
}

TEST(Bleu, OfItselfIsAHundred) {
  const Segments text = golden_lines("texts");
  EXPECT_DOUBLE_EQ(bleu(text, {text}).score, 100.0);
  EXPECT_DOUBLE_EQ(chrf(text, {text}), 100.0);
}

TEST(Bleu, OfNothingIsZero) {
  EXPECT_EQ(bleu({""}, {{""}}).score, 0.0);
  EXPECT_EQ(bleu({""}, {{"a b"}}).brevity_penalty, 0.0);
  EXPECT_EQ(chrf({""}, {{""}}), 0.0);
}

TEST(Bleu, CountsSplitCompounds) {
  BleuOptions options;
  options.tokenizer = BleuTokenizer::kNone;
  const Segments hypothesis{"the red-brown field is wide"},
      reference{"the reddish-brown field is wide"};
  const Bleu whole = bleu(hypothesis, {reference}, options);
  options.split_compounds = true;
  const Bleu split = bleu(hypothesis, {reference}, options);
  EXPECT_EQ(whole.hypothesis_length, 5);
  EXPECT_EQ(split.hypothesis_length, 7);
  EXPECT_GT(split.score, whole.score);
  EXPECT_THAT(signature(options, 1), HasSubstr("|tok:none|smooth:exp|compounds:split|version:"));
}

TEST(SplitCompounds, TakesACharacterForOneHyphenOnly) {
  EXPECT_EQ(split_compounds("well-known"), "well ##AT##-##AT## known");
  EXPECT_EQ(split_compounds("a-b-c"), "a ##AT##-##AT## b-c");
  EXPECT_EQ(split_compounds("one-two-three"), "one ##AT##-##AT## two ##AT##-##AT## three");
  EXPECT_EQ(split_compounds("- a -b c- --- x"), "- a -b c- - ##AT##-##AT## - x");
  EXPECT_EQ(split_compounds("\u00fc-\u00e4"), "\u00fc ##AT##-##AT## \u00e4");
}

TEST(Tokenize13a, PartsSignsFromWords) {
  EXPECT_EQ(tokenize_13a("Hello, world! It's 3.5-4,000."), "Hello , world ! It's 3.5 - 4,000 .");
  EXPECT_EQ(tokenize_13a("a<skipped>b &quot;c&quot; &lt;d&gt;"), "ab \" c \" < d >");
  EXPECT_EQ(tokenize_13a("..x,,9"), ". . x , ,9");
  EXPECT_EQ(tokenize_13a(""), "");
}

TEST(WordsOf, PartsAtWhatPythonCallsSpace) {
  EXPECT_THAT(words_of(" a\u00a0b\x1c\u3000c\n"), ElementsAre("a", "b", "c"));
  EXPECT_THAT(words_of("  "), ElementsAre());
}

TEST(Scores, RefuseTextsOfDifferentLength) {
  EXPECT_THAT(message_of([] {
                bleu({"a", "b"}, {{"a", "b"}, {"a"}});
              }),
              HasSubstr("BLEU: expected as many lines as reference 2, 1; found 2 lines"));
  EXPECT_THAT(message_of([] { chrf({"a"}, {}); }), HasSubstr("at least one reference; found none"));
  EXPECT_THAT(message_of([] { bleu({}, {{}}); }), HasSubstr("at least one line; found none"));
}

}  // namespace
}  // namespace headloom::text

// Normalisers, pre-tokenisers, models and added tokens, one at a time.
#include "headloom/text/bpe.h"
#include "headloom/text/byte_level.h"
#include "headloom/text/normalizer.h"
#include "headloom/text/pre_tokenizer.h"
#include "headloom/text/tokenizer.h"
#include "tests/text/support.h"

namespace headloom::text {
namespace {

using ::testing::ElementsAre;
using Ids = std::vector<int64_t>;

std::string normalized(const Json& part, std::string_view text) {
  return Normalizer(part, "normalizer").apply(text);
}

std::vector<std::string> split(const Json& part, std::string_view text) {
  std::vector<std::string_view> words;
  std::string storage;
  PreTokenizer(part, "pre_tokenizer").split(text, words, storage);
  return {words.begin(), words.end()};
}

const Json kGpt2 = {{"type", "ByteLevel"}, {"add_prefix_space", false}};

TEST(Normalizer, FollowsBert) {
  const Json bert = {{"type", "BertNormalizer"}};
  EXPECT_EQ(normalized(bert, "\u00dcber\tC\u00f4t\u00e9\u00a0d"), "uber cote d");
  EXPECT_EQ(normalized(bert, std::string_view("a\0b\u200d\x07\ufffd", 10)), "ab");
  EXPECT_EQ(normalized(bert, "\u6a5f\u7e54a"), " \u6a5f  \u7e54 a");
  EXPECT_EQ(normalized({{"type", "BertNormalizer"}, {"lowercase", false}}, "\u00dcB"), "\u00dcB");
  EXPECT_EQ(normalized({{"type", "BertNormalizer"}, {"lowercase", false}, {"strip_accents", true}},
                       "\u00dcB"),
            "UB");
}

TEST(Normalizer, KnowsTheFormsOfUnicode) {
  EXPECT_EQ(normalized({{"type", "NFC"}}, "a\u0308"), "\u00e4");
  EXPECT_EQ(normalized({{"type", "NFD"}}, "\u00e4"), "a\u0308");
  EXPECT_EQ(normalized({{"type", "NFKC"}}, "\ufb01\u00bd"), "fi1\u20442");
  EXPECT_EQ(normalized({{"type", "NFKD"}}, "\u00e4\ufb01"), "a\u0308fi");
  EXPECT_EQ(normalized({{"type", "Lowercase"}}, "\u0130A\u03a3"), "i\u0307a\u03c3");
  const Json sequence = {{"type", "Sequence"},
                         {"normalizers", {{{"type", "NFD"}}, {{"type", "StripAccents"}}}}};
  EXPECT_EQ(normalized(sequence, "\u00e4\u00e9"), "ae");
  EXPECT_EQ(normalized(nullptr, "\u00c4"), "\u00c4");
}

TEST(PreTokenizer, CutsAsGpt2Does) {
  EXPECT_THAT(split(kGpt2, "Hello world's 3cats!?"),
              ElementsAre("Hello", " world", "'s", " 3", "cats", "!?"));
  EXPECT_THAT(split(kGpt2, "a  b   \n c \n"), ElementsAre("a", " ", " b", "   \n", " c", " \n"));
  EXPECT_THAT(split(kGpt2, "we'll 'll !'s"), ElementsAre("we", "'ll", " '", "ll", " !'", "s"));
  EXPECT_THAT(split(kGpt2, "x\u00a0y\u3000\u3000z"),
              ElementsAre("x", "\u00a0", "y", "\u3000", "\u3000", "z"));
  EXPECT_THAT(split(kGpt2, "\u00e4\u0308\u0663"), ElementsAre("\u00e4", "\u0308", "\u0663"));
}

TEST(PreTokenizer, PutsASpaceInFrontOnce) {
  const Json prefix = {{"type", "ByteLevel"}, {"add_prefix_space", true}};
  EXPECT_THAT(split(prefix, "a b"), ElementsAre(" a", " b"));
  EXPECT_THAT(split(prefix, " a"), ElementsAre(" a"));
  EXPECT_THAT(split(prefix, ""), ElementsAre());
  Json whole = kGpt2;
  whole["use_regex"] = false;
  EXPECT_THAT(split(whole, "a b c"), ElementsAre("a b c"));
}

TEST(PreTokenizer, CutsAsBertDoes) {
  EXPECT_THAT(split({{"type", "BertPreTokenizer"}}, " don't stop\u2014now. "),
              ElementsAre("don", "'", "t", "stop", "\u2014", "now", "."));
  EXPECT_THAT(split({{"type", "WhitespaceSplit"}}, " a-b\u2003c "), ElementsAre("a-b", "c"));
  EXPECT_THAT(split(nullptr, "a b"), ElementsAre("a b"));
}

TEST(ByteLevel, WritesEveryByteAndReadsItBack) {
  std::string bytes;
  for (int i = 0; i < 256; ++i) bytes += static_cast<char>(i);
  EXPECT_EQ(from_byte_level(to_byte_level(bytes)), bytes);
  EXPECT_EQ(to_byte_level(" a\n"), "\u0120a\u010a");
  EXPECT_EQ(from_byte_level("\u6a5f"), std::nullopt);
}

TEST(Bpe, MergesInTheOrderOfLearning) {
  const Tokenizer tokenizer = Tokenizer::parse(small_file(), "small");
  EXPECT_EQ(tokenizer.encode("abc bc abab cab"), (Ids{4, 5, 3, 3, 2, 3}));
  EXPECT_EQ(tokenizer.encode("axb"), (Ids{3})) << "without unk_token, x vanishes";
}

TEST(Bpe, ReplacesWhatItDoesNotKnow) {
  const auto with = [](bool fuse) {
    return Tokenizer::parse(small_file([&](Json& file) {
                              file["model"]["unk_token"] = "?";
                              file["model"]["fuse_unk"] = fuse;
                            }),
                            "small");
  };
  EXPECT_EQ(with(false).encode("axyb"), (Ids{0, 6, 6, 1}));
  EXPECT_EQ(with(true).encode("axyb"), (Ids{0, 6, 1}));
}

TEST(Bpe, TakesWholeWordsWhenMergesAreIgnored) {
  const std::string file = small_file([](Json& file) {
    file["model"]["ignore_merges"] = true;
    file["model"]["merges"] = Json::array();
  });
  EXPECT_EQ(Tokenizer::parse(file, "small").encode("abc ac"), (Ids{4, 0, 2}));
}

TEST(Bpe, MarksContinuingCharactersAndEndsOfWords) {
  const std::string file = small_file([](Json& file) {
    file["model"] = {
        {"type", "BPE"},
        {"continuing_subword_prefix", "-"},
        {"end_of_word_suffix", "."},
        {"vocab", {{"a", 0}, {"-b", 1}, {"-c.", 2}, {"a.", 3}, {"ab", 4}, {"abc.", 5}}},
        {"merges", {"a -b", "ab -c."}}};
    file["decoder"] = {{"type", "BPEDecoder"}, {"suffix", "."}};
  });
  const Tokenizer tokenizer = Tokenizer::parse(file, "small");
  EXPECT_EQ(tokenizer.encode("abc a"), (Ids{5, 3}));
  EXPECT_EQ(tokenizer.decode({5, 3}), "abc a");
}

TEST(Bpe, IsFastOnOneEndlessWord) {
  const Tokenizer tokenizer = Tokenizer::parse(small_file(), "small");
  std::string word;
  while (word.size() < 3'000'000) word += "abc";
  EXPECT_EQ(tokenizer.encode(word).size(), 1'000'000u);
}

struct Added {
  const char* name;
  Json flags;
  std::string text;
  Ids ids;
};

class AddedTokenRules : public ::testing::TestWithParam<Added> {};

TEST_P(AddedTokenRules, AreThoseOfThePackage) {
  const std::string file = small_file([](Json& file) {
    Json token = {{"id", 7}, {"content", "ab"}};
    token.update(GetParam().flags);
    file["added_tokens"] = {token, {{"id", 8}, {"content", "abba"}, {"normalized", false}}};
    // Not the id of "ab" in the model.
    file["model"]["vocab"] = {{"a", 0}, {"b", 1}, {"c", 2}, {"?", 6}};
    file["model"]["merges"] = Json::array();
    file["normalizer"] = {{"type", "Lowercase"}};
    file["pre_tokenizer"] = nullptr;
    file["model"]["unk_token"] = "?";
  });
  EXPECT_EQ(Tokenizer::parse(file, "small").encode(GetParam().text), GetParam().ids);
}

INSTANTIATE_TEST_SUITE_P(
    Flags, AddedTokenRules,
    ::testing::Values(
        Added{"LongestOfThoseThatStart", {{"normalized", false}}, "abba ab", {8, 6, 7}},
        Added{"RawTextOnly", {{"normalized", false}}, "AB ab", {0, 1, 6, 7}},
        Added{"AfterTheNormalizer", {{"normalized", true}}, "AB ab", {7, 6, 7}},
        Added{"SingleWord", {{"single_word", true}}, "cab ab, ab", {2, 0, 1, 6, 7, 6, 6, 7}},
        Added{"SpaceBefore", {{"lstrip", true}}, "c  ab c", {2, 7, 6, 2}},
        Added{"SpaceAfter", {{"rstrip", true}}, "c ab \n ab", {2, 6, 7, 7}},
        Added{"SpaceOnBothSides", {{"lstrip", true}, {"rstrip", true}}, " ab ab ", {7, 7}}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace headloom::text

#include "headloom/text/tokenizer_trainer.h"

#include "tests/text/support.h"

namespace headloom::text {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Role = Tokenizer::Role;

BpeTrainerOptions plain(size_t size, int64_t min_frequency = 1) {
  BpeTrainerOptions options;
  options.size = size;
  options.min_frequency = min_frequency;
  return options;
}

using Merge = std::pair<std::string, std::string>;

TEST(TrainBpe, MergesTheMostFrequentPair) {
  const WordCounts words = {{"abab", 3}, {"ab", 1}, {"bc", 5}};
  const TrainedBpe trained = train_bpe(words, plain(6));
  EXPECT_THAT(trained.tokens, ElementsAre("a", "b", "c", "ab", "bc", "abab"));
  EXPECT_THAT(trained.merges, ElementsAre(Merge("a", "b"), Merge("b", "c"), Merge("ab", "ab")));
}

TEST(TrainBpe, TakesTheSmallestIdsOfEqualPairs) {
  const TrainedBpe trained = train_bpe({{"zy", 2}, {"ab", 2}}, plain(6));
  EXPECT_THAT(trained.merges, ElementsAre(Merge("a", "b"), Merge("z", "y")));
}

TEST(TrainBpe, StopsWhenPairsAreRare) {
  EXPECT_TRUE(train_bpe({{"ab", 1}, {"ac", 1}}, plain(10, 2)).merges.empty());
  EXPECT_EQ(train_bpe({{"ab", 2}, {"ac", 1}}, plain(10, 2)).merges.size(), 1u);
}

TEST(TrainBpe, JoinsRunsFromTheLeft) {
  const TrainedBpe trained = train_bpe({{"aaaaa", 4}}, plain(4));
  EXPECT_THAT(trained.merges, ElementsAre(Merge("a", "a"), Merge("aa", "a"), Merge("aa", "aaa")));
}

TEST(TrainBpe, KeepsTheMostFrequentCharacters) {
  BpeTrainerOptions options = plain(10);
  options.alphabet_limit = 2;
  const TrainedBpe trained = train_bpe({{"abc", 1}, {"ac", 3}}, options);
  EXPECT_THAT(trained.tokens, ElementsAre("a", "c", "ac"));
}

TEST(TrainBpe, MarksContinuingCharacters) {
  BpeTrainerOptions options = plain(20);
  options.continuing_prefix = "##";
  const TrainedBpe trained = train_bpe({{"aba", 2}}, options);
  EXPECT_THAT(trained.tokens, ElementsAre("a", "b", "##b", "##a", "ab", "aba"));
}

TEST(TokenizerTrainer, GivesEveryTextIdsWithBytes) {
  TokenizerTrainerOptions options;
  options.size = 300;
  TokenizerTrainer trainer(options);
  trainer.add("only a few words, only a few");
  const Tokenizer tokenizer = trainer.train();
  for (const std::string& sample : golden_lines("samples")) {
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(sample), false), sample);
  }
  EXPECT_EQ(tokenizer.id(Role::kBegin), 0);
  EXPECT_EQ(tokenizer.id(Role::kPad), 1);
  EXPECT_EQ(tokenizer.id(Role::kMask), 4);
  const Encoding pair = tokenizer.encode_pair("a", "b");
  EXPECT_EQ(pair.ids.size(), 6u);
  EXPECT_EQ(pair.ids.front(), 0);
}

TEST(TokenizerTrainer, DoesNotDependOnTheOrderOfLines) {
  for (const Algorithm algorithm : {Algorithm::kBpe, Algorithm::kWordPiece}) {
    TokenizerTrainerOptions options;
    options.algorithm = algorithm;
    options.size = 400;
    TokenizerTrainer forward(options), backward(options);
    auto lines = golden_lines("texts");
    for (const std::string& line : lines) forward.add(line);
    std::reverse(lines.begin(), lines.end());
    for (const std::string& line : lines) backward.add(line);
    EXPECT_EQ(forward.train().to_json(), backward.train().to_json());
  }
}

TEST(TokenizerTrainer, FramesWordPiecesAsBert) {
  TokenizerTrainerOptions options;
  options.algorithm = Algorithm::kWordPiece;
  options.size = 100;
  TokenizerTrainer trainer(options);
  trainer.add("Caf\u00e9 caf\u00e9 CAFE");
  const Tokenizer tokenizer = trainer.train();
  const int64_t cafe = *tokenizer.id("cafe"), begin = 2, end = 3;
  const Encoding pair = tokenizer.encode_pair("CAF\u00c9", "cafe");
  EXPECT_EQ(pair.ids, (std::vector<int64_t>{begin, cafe, end, cafe, end}));
  EXPECT_EQ(pair.types, (std::vector<int64_t>{0, 0, 0, 1, 1}));
  EXPECT_EQ(tokenizer.encode("xyz"), (std::vector<int64_t>{1}));
}

TEST(TokenizerTrainer, TakesSpecialTokensAsTheyAreGiven) {
  TokenizerTrainerOptions options;
  options.size = 300;
  options.special = {"<|end|>", "<pad>"};
  TokenizerTrainer trainer(options);
  trainer.add("a text");
  const Tokenizer tokenizer = trainer.train();
  EXPECT_EQ(tokenizer.encode("<|end|>"), (std::vector<int64_t>{0}));
  EXPECT_EQ(tokenizer.encode_single("a").ids, tokenizer.encode("a"));
}

TEST(TokenizerTrainer, LeavesOutEndlessWords) {
  TokenizerTrainerOptions options;
  options.size = 300;
  TokenizerTrainer trainer(options);
  trainer.add(std::string(1 << 20, 'x') + " word");
  EXPECT_EQ(trainer.words(), 2);
  EXPECT_EQ(trainer.skipped(), 1);
  EXPECT_EQ(trainer.train().id("xx"), std::nullopt);
}

TEST(TokenizerTrainer, RefusesWhatCannotBe) {
  const auto with = [](auto change) {
    TokenizerTrainerOptions options;
    change(options);
    return message_of([&] {
      TokenizerTrainer trainer(options);
      trainer.add("a text");
      trainer.train();
    });
  };
  EXPECT_THAT(with([](auto& o) { o.size = 100; }), HasSubstr("a size of at least 261"));
  EXPECT_THAT(with([](auto& o) { o.size = 0; }), HasSubstr("a size of at least 1; found 0"));
  EXPECT_THAT(with([](auto& o) { o.min_frequency = -1; }), HasSubstr("a lowest frequency from 0"));
  EXPECT_THAT(with([](auto& o) { o.alphabet_limit = -1; }), HasSubstr("an alphabet limit from 0"));
  EXPECT_THAT(with([](auto& o) { o.special = {"x", "y", "x"}; }), HasSubstr("\"x\" twice"));
  EXPECT_THAT(with([](auto& o) { o.special = {""}; }), HasSubstr("not empty"));
  EXPECT_THAT(with([](auto& o) {
                o.algorithm = Algorithm::kWordPiece;
                o.special = {"[PAD]"};
              }),
              HasSubstr("[UNK] or <unk> among the special tokens"));
  EXPECT_THAT(message_of([] { TokenizerTrainer({}).train(); }), HasSubstr("text with words"));
}

}  // namespace
}  // namespace headloom::text

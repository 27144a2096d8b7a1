// Random bytes through everything that reads text or files: no crash, and what must hold, holds.
#include <algorithm>

#include "headloom/base/rng.h"
#include "headloom/text/bleu.h"
#include "headloom/text/chrf.h"
#include "headloom/text/lines.h"
#include "headloom/text/tokenizer_trainer.h"
#include "headloom/text/utf8.h"
#include "tests/text/support.h"

namespace headloom::text {
namespace {

constexpr int kTexts = 400;

class Random {
 public:
  explicit Random(uint64_t seed) : seed_(seed) {}
  uint32_t below(uint32_t n) { return philox4x32(seed_, counter_++, 0).word[0] % n; }

  // Pieces that are likely to matter, and any bytes.
  std::string text() {
    static const std::vector<std::string> pieces = {
        " ",      "  ",      "\n",     "\r\n",   "\t",     "'s",         "a",
        "the",    "Z",       "9",      ".",      ",",      "-",          "<mask>",
        "[MASK]", "<s>",     "[CLS]",  "\u00a0", "\u0308", "\u00e4",     "\ufeff",
        "\u200d", "\u6a5f",  "\u00bd", "\u0130", "\xff",   "\xe2\x82",   "\xf0",
        "\xc0",   "##",      "&quot;", "<skip",  "ped>",   "\U0001f9f6", std::string(1, '\0'),
        "\u2028", "xxxxxxxx"};
    std::string text;
    const uint32_t count = below(40);
    for (uint32_t i = 0; i < count; ++i) {
      if (below(4) == 0) {
        text += static_cast<char>(below(256));
      } else {
        text += pieces[below(static_cast<uint32_t>(pieces.size()))];
      }
    }
    return text;
  }

 private:
  uint64_t seed_, counter_ = 0;
};

std::vector<std::string> texts(uint64_t seed) {
  Random random(seed);
  std::vector<std::string> result(kTexts);
  for (std::string& text : result) text = random.text();
  return result;
}

class FuzzedTokenizer : public ::testing::TestWithParam<size_t> {};

TEST_P(FuzzedTokenizer, TakesAnyBytes) {
  const auto& entry = golden()["tokenizers"][GetParam()];
  const Tokenizer tokenizer = Tokenizer::parse(entry["file"].get<std::string>(), "golden");
  const bool lossless = GetParam() == 0;
  for (const std::string& text : texts(GetParam())) {
    const std::vector<int64_t> ids = tokenizer.encode(text);
    EXPECT_EQ(tokenizer.encode(repair(text)), ids);
    EXPECT_TRUE(std::all_of(ids.begin(), ids.end(),
                            [&](int64_t id) { return id >= 0 && id < tokenizer.size(); }));
    const std::string decoded = tokenizer.decode(ids, false);
    EXPECT_FALSE(first_invalid(decoded));
    // <mask> takes the white space before it with it.
    if (lossless && text.find("<mask>") == std::string::npos) {
      EXPECT_EQ(decoded, repair(text));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Files, FuzzedTokenizer, ::testing::Values(0, 1, 2, 3));

TEST(Fuzz, LinesCoverTheText) {
  Random random(7);
  for (const std::string& text : texts(7)) {
    LineReader reader(
        [source = source_of(text), &random](char* buffer, size_t size) {
          return source(buffer, std::min<size_t>(size, 1 + random.below(9)));
        },
        "fuzz");
    int64_t count = 0;
    for (std::string line; reader.next(line); ++count) {
      EXPECT_FALSE(first_invalid(line));
      EXPECT_EQ(line.find('\n'), std::string::npos);
    }
    const auto breaks = std::count(text.begin(), text.end(), '\n');
    EXPECT_EQ(count, breaks + (text.empty() || text.back() == '\n' ? 0 : 1));
  }
}

TEST(Fuzz, TrainingTakesAnyBytes) {
  for (const Algorithm algorithm : {Algorithm::kBpe, Algorithm::kWordPiece}) {
    TokenizerTrainerOptions options;
    options.algorithm = algorithm;
    options.size = 600;
    TokenizerTrainer trainer(options);
    for (const std::string& text : texts(8)) trainer.add(text);
    const Tokenizer tokenizer = trainer.train();
    EXPECT_EQ(Tokenizer::parse(tokenizer.to_json(), "again").to_json(), tokenizer.to_json());
  }
}

TEST(Fuzz, ScoresTakeAnyText) {
  std::vector<std::string> hypotheses = texts(9), references = texts(10);
  for (std::string& text : hypotheses) text = repair(text);
  for (std::string& text : references) text = repair(text);
  BleuOptions split;
  split.split_compounds = split.lowercase = true;
  ChrfOptions words;
  words.word_order = 2;
  for (const double score :
       {bleu(hypotheses, {references}).score, bleu(hypotheses, {references}, split).score,
        chrf(hypotheses, {references}), chrf(hypotheses, {references}, words)}) {
    EXPECT_GE(score, 0.0);
    EXPECT_LE(score, 100.0);
  }
}

// Every prefix of a file, and files with a byte changed: refused or read, nothing else.
TEST(Fuzz, FilesAreReadOrRefused) {
  const std::string file = small_file();
  Random random(11);
  int read = 0;
  const auto attempt = [&](const std::string& bytes) {
    try {
      read += Tokenizer::parse(bytes, "fuzz").encode("abc ab").size() < 100;
    } catch (const Error&) {
    }
  };
  for (size_t size = 0; size <= file.size(); ++size) attempt(file.substr(0, size));
  EXPECT_EQ(read, 1) << "the whole file";
  for (int i = 0; i < 3000; ++i) {
    std::string changed = file;
    changed[random.below(static_cast<uint32_t>(file.size()))] =
        static_cast<char>(random.below(256));
    attempt(changed);
  }
  EXPECT_GT(read, 100);
}

}  // namespace
}  // namespace headloom::text

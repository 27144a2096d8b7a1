#pragma once

#include <string>
#include <vector>

#include "headloom/text/bpe_trainer.h"
#include "headloom/text/lines.h"
#include "headloom/text/normalizer.h"
#include "headloom/text/pre_tokenizer.h"
#include "headloom/text/tokenizer.h"

namespace headloom::text {

enum class Algorithm { kBpe, kWordPiece };

struct TokenizerTrainerOptions {
  Algorithm algorithm = Algorithm::kBpe;
  int64_t size = 30'000;      // tokens, special ones and characters included
  int64_t min_frequency = 2;  // of a pair that is merged
  // The first ids, in this order. Empty: <s> <pad> </s> <unk> <mask> for BPE (RoBERTa's order),
  // [PAD] [UNK] [CLS] [SEP] [MASK] for WordPiece (BERT's). With a begin and an end among them,
  // texts are framed: <s> A </s>, <s> A </s> </s> B </s>; [CLS] A [SEP], [CLS] A [SEP] B [SEP] with
  // the second part of type 1. WordPiece needs an unknown token among them.
  std::vector<std::string> special;
  bool prefix_space = false;      // BPE: the first word of a text is like any other
  bool lowercase = true;          // WordPiece: lower case without accents
  int64_t alphabet_limit = 1000;  // WordPiece: most frequent characters that are kept; 0 keeps all
};

// Learns a tokenizer from lines of text, in the form of the tokenizers package: byte-level BPE with
// GPT-2's pre-tokeniser and an alphabet of all 256 bytes, so that every text has ids; or WordPiece
// with BERT's normaliser and pre-tokeniser, whose tokens are found by byte-pair encoding with the
// prefix "##", as that package does.
//
// Memory grows with the number of different words, not with the text. Words of more than
// kLongestWord bytes (a text without spaces, say) are not learned from; skipped() counts them. The
// result depends on the words' counts alone, not on their order.
class TokenizerTrainer {
 public:
  static constexpr size_t kLongestWord = 1024;

  explicit TokenizerTrainer(const TokenizerTrainerOptions& options);
  void add(std::string_view line);
  void add(LineReader& lines);
  int64_t words() const { return words_; }
  int64_t skipped() const { return skipped_; }

  // Refuses to learn from no words.
  Tokenizer train() const;

 private:
  TokenizerTrainerOptions options_;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  WordCounts counts_;
  int64_t words_ = 0, skipped_ = 0;
};

}  // namespace headloom::text

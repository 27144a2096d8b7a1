#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "headloom/text/model.h"

namespace headloom::text {

struct BpeTrainerOptions {
  size_t size = 30'000;               // tokens, the special ones included
  int64_t min_frequency = 2;          // of a pair that is merged
  std::vector<std::string> special;   // the first ids
  std::vector<std::string> alphabet;  // characters that are tokens in any case
  size_t alphabet_limit = 0;          // keeps the most frequent characters; 0 keeps all
  std::string continuing_prefix;      // before characters that do not start a word
};

struct TrainedBpe {
  std::vector<std::string> tokens;  // by id
  Merges merges;
};

using WordCounts = std::unordered_map<std::string, int64_t>;

// Byte-pair encoding learned from words and how often they occur (Sennrich et al., 2016): merges
// the most frequent pair of neighbours, of equals the one with the smallest ids, until there are
// `size` tokens or no pair is frequent enough. The same tokens and merges as the tokenizers
// package, where its result does not depend on chance: with a continuing_prefix it numbers
// characters in the order of a hash table, here in the order of their words.
//
// Refuses a size below the special tokens and the characters together.
TrainedBpe train_bpe(const WordCounts& words, const BpeTrainerOptions& options);

}  // namespace headloom::text

#include "headloom/text/bpe_trainer.h"

#include <algorithm>
#include <map>
#include <queue>
#include <set>

#include "headloom/base/check.h"
#include "headloom/text/pair_table.h"
#include "headloom/text/utf8.h"

namespace headloom::text {
namespace {

using Id = uint32_t;
using Pair = std::pair<Id, Id>;

struct Word {
  std::vector<Id> symbols;
  int64_t count;
};

// A pair, how often it was seen when this was queued, and the words in which it was. Counts fall
// while an entry waits; it is then queued again with what is true.
struct Entry {
  Pair pair;
  int64_t count;
  std::vector<uint32_t> words;

  bool operator<(const Entry& other) const {  // the largest goes first
    return count != other.count ? count < other.count : pair > other.pair;
  }
};

class Trainer {
 public:
  Trainer(const WordCounts& words, const BpeTrainerOptions& options) : options_(options) {
    for (const std::string& token : options.special) id_of(token);
    add_alphabet(words);
    cut_words(words);
    HEADLOOM_CHECK(result_.tokens.size() <= options.size, "tokenizer training",
                   cat("a size of at least ", result_.tokens.size(),
                       ", the special tokens and the characters"),
                   cat(options.size), "Raise the size or limit the alphabet.");
  }

  TrainedBpe run() {
    count_pairs();
    while (result_.tokens.size() < options_.size && !queue_.empty()) {
      // The queue's order does not look at the words, so they may be moved away.
      Entry top = std::move(const_cast<Entry&>(queue_.top()));
      queue_.pop();
      const int64_t count = static_cast<int64_t>(*counts_.find(key_of(top.pair)));
      if (count != top.count) {
        top.count = count;
        queue_.push(std::move(top));
        continue;
      }
      if (count < std::max<int64_t>(1, options_.min_frequency)) break;
      merge(top);
    }
    return std::move(result_);
  }

 private:
  static uint64_t key_of(const Pair& pair) { return pair_key(pair.first, pair.second); }

  Id id_of(const std::string& token) {
    const auto [entry, is_new] = ids_.emplace(token, static_cast<Id>(result_.tokens.size()));
    if (is_new) result_.tokens.push_back(token);
    return entry->second;
  }

  void add_alphabet(const WordCounts& words);
  void cut_words(const WordCounts& words);
  void count_pairs();
  void merge(const Entry& top);
  void merge_in_word(uint32_t index, const Pair& pair, Id made);

  // A change of a pair's count; a growing one is remembered with the word, for the queue.
  void change(const Pair& pair, int64_t by, uint32_t word) {
    const uint64_t key = key_of(pair);
    const uint64_t* old = counts_.find(key);
    const int64_t count = (old ? static_cast<int64_t>(*old) : 0) + by;
    counts_.set(key, static_cast<uint64_t>(count));
    if (by <= 0) return;
    std::vector<uint32_t>& list = grown_[pair];
    if (list.empty() || list.back() != word) list.push_back(word);
  }
  void queue_grown() {
    for (auto& [pair, words] : grown_) {
      const int64_t count = static_cast<int64_t>(*counts_.find(key_of(pair)));
      if (count > 0) queue_.push({pair, count, std::move(words)});
    }
    grown_.clear();
  }

  const BpeTrainerOptions& options_;
  TrainedBpe result_;
  std::unordered_map<std::string, Id> ids_;
  std::set<std::string> alphabet_;
  std::vector<Word> words_;
  PairTable counts_;
  std::map<Pair, std::vector<uint32_t>> grown_;
  std::priority_queue<Entry> queue_;
};

void Trainer::add_alphabet(const WordCounts& words) {
  std::map<std::string, int64_t> counts;  // UTF-8 sorts as code points do
  for (const auto& [word, count] : words) {
    for (size_t at = 0; at < word.size();) {
      const size_t begin = at;
      next_character(word, at);
      counts[word.substr(begin, at - begin)] += count;
    }
  }
  for (const std::string& character : options_.alphabet) counts[character] = INT64_MAX;
  std::vector<std::pair<std::string, int64_t>> sorted(counts.begin(), counts.end());
  if (options_.alphabet_limit > 0 && sorted.size() > options_.alphabet_limit) {
    std::stable_sort(sorted.begin(), sorted.end(),
                     [](const auto& a, const auto& b) { return a.second > b.second; });
    sorted.resize(options_.alphabet_limit);
  }
  for (const auto& [character, count] : sorted) alphabet_.insert(character);
  for (const std::string& character : alphabet_) id_of(character);
}

void Trainer::cut_words(const WordCounts& words) {
  const std::map<std::string, int64_t> sorted(words.begin(), words.end());
  words_.reserve(sorted.size());
  for (const auto& [text, count] : sorted) {
    Word word{{}, count};
    for (size_t at = 0; at < text.size();) {
      const size_t begin = at;
      next_character(text, at);
      const std::string character = text.substr(begin, at - begin);
      if (!alphabet_.contains(character)) continue;
      word.symbols.push_back(id_of(begin > 0 ? options_.continuing_prefix + character : character));
    }
    words_.push_back(std::move(word));
  }
}

void Trainer::count_pairs() {
  for (uint32_t i = 0; i < words_.size(); ++i) {
    const std::vector<Id>& symbols = words_[i].symbols;
    for (size_t j = 0; j + 1 < symbols.size(); ++j) {
      change({symbols[j], symbols[j + 1]}, words_[i].count, i);
    }
  }
  queue_grown();
}

void Trainer::merge(const Entry& top) {
  const std::string left = result_.tokens[top.pair.first], right = result_.tokens[top.pair.second];
  const size_t prefix =
      right.starts_with(options_.continuing_prefix) ? options_.continuing_prefix.size() : 0;
  const Id made = id_of(left + right.substr(prefix));
  result_.merges.emplace_back(left, right);
  for (const uint32_t word : top.words) merge_in_word(word, top.pair, made);
  queue_grown();
}

void Trainer::merge_in_word(uint32_t index, const Pair& pair, Id made) {
  Word& word = words_[index];
  std::vector<Id>& symbols = word.symbols;
  size_t kept = 0;  // symbols[0, kept) are done
  for (size_t i = 0; i < symbols.size(); ++kept) {
    const bool found =
        i + 1 < symbols.size() && symbols[i] == pair.first && symbols[i + 1] == pair.second;
    if (!found) {
      symbols[kept] = symbols[i++];
      continue;
    }
    if (kept > 0) {
      change({symbols[kept - 1], pair.first}, -word.count, index);
      change({symbols[kept - 1], made}, word.count, index);
    }
    i += 2;
    if (i < symbols.size()) {
      change({pair.second, symbols[i]}, -word.count, index);
      change({made, symbols[i]}, word.count, index);
    }
    symbols[kept] = made;
  }
  symbols.resize(kept);
}

}  // namespace

TrainedBpe train_bpe(const WordCounts& words, const BpeTrainerOptions& options) {
  return Trainer(words, options).run();
}

}  // namespace headloom::text

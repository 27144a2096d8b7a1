#include "headloom/text/bpe.h"

#include <queue>

#include "headloom/base/check.h"
#include "headloom/text/utf8.h"

namespace headloom::text {

struct Bpe::Symbol {
  int32_t id;
  int32_t previous, next;  // -1 at the ends
  bool gone = false;
};

struct Bpe::Candidate {
  uint32_t rank, id;  // of the merge, of its result
  int32_t at;         // the left symbol

  bool operator<(const Candidate& other) const {  // the largest goes first
    return rank != other.rank ? rank > other.rank : at > other.at;
  }
};

class Bpe::Merger {
 public:
  Merger(const PairTable& table, std::vector<Symbol>& symbols) : table_(table), symbols_(symbols) {
    for (size_t i = 0; i + 1 < symbols.size(); ++i) consider(static_cast<int32_t>(i));
  }

  void run() {
    while (!queue_.empty()) {
      const Candidate top = queue_.top();
      queue_.pop();
      // An entry outlives the symbols that it was made for. It still counts when what is there now
      // gives the same token, which is how the tokenizers package decides.
      if (const uint64_t* merge = merge_at(top.at)) {
        if (static_cast<uint32_t>(*merge) == top.id) join(top);
      }
    }
  }

 private:
  const uint64_t* merge_at(int32_t at) const {
    const Symbol& left = symbols_[at];
    if (left.gone || left.next < 0) return nullptr;
    return table_.find(pair_key(left.id, symbols_[left.next].id));
  }

  void consider(int32_t at) {
    if (const uint64_t* merge = merge_at(at)) {
      queue_.push({static_cast<uint32_t>(*merge >> 32), static_cast<uint32_t>(*merge), at});
    }
  }

  void join(const Candidate& top) {
    Symbol& left = symbols_[top.at];
    Symbol& right = symbols_[left.next];
    left.id = static_cast<int32_t>(top.id);
    left.next = right.next;
    right.gone = true;
    if (left.next >= 0) symbols_[left.next].previous = top.at;
    if (left.previous >= 0) consider(left.previous);
    consider(top.at);
  }

  const PairTable& table_;
  std::vector<Symbol>& symbols_;
  std::priority_queue<Candidate> queue_;
};

Bpe::Bpe(const Json& part, std::unique_ptr<Vocabulary> vocabulary, Merges merges,
         const std::string& where)
    : Model(std::move(vocabulary)), merges_(std::move(merges)) {
  const double dropout = optional_value<double>(part, "dropout", 0.0, where);
  HEADLOOM_CHECK(dropout == 0.0, where, "\"dropout\": null or 0", cat(dropout),
                 "Ids would be random; set it to null.");
  HEADLOOM_CHECK(!optional_value<bool>(part, "byte_fallback", false, where), where,
                 "\"byte_fallback\": false", "true", "Byte-level BPE needs no fallback.");
  prefix_ = optional_value<std::string>(part, "continuing_subword_prefix", "", where);
  suffix_ = optional_value<std::string>(part, "end_of_word_suffix", "", where);
  fuse_unknown_ = optional_value<bool>(part, "fuse_unk", false, where);
  ignore_merges_ = optional_value<bool>(part, "ignore_merges", false, where);
  const std::string unknown = optional_value<std::string>(part, "unk_token", "", where);
  if (!unknown.empty()) {
    unknown_ = this->vocabulary().id(unknown);
    HEADLOOM_CHECK(unknown_, where, "unk_token in the vocabulary", cat('"', unknown, '"'));
  }
  build_table(where);
}

void Bpe::build_table(const std::string& where) {
  for (size_t rank = 0; rank < merges_.size(); ++rank) {
    const auto& [left, right] = merges_[rank];
    const auto id_of = [&](const std::string& token) {
      const auto id = vocabulary().id(token);
      HEADLOOM_CHECK(id, where, cat("merge ", rank, " of tokens in the vocabulary"),
                     cat('"', token, "\", which is not"));
      return static_cast<uint32_t>(*id);
    };
    HEADLOOM_CHECK(right.size() >= prefix_.size(), where,
                   cat("merge ", rank, " with \"", prefix_, "\" before its second token"),
                   cat('"', right, '"'));
    const uint64_t key = pair_key(id_of(left), id_of(right));
    const uint32_t result = id_of(left + right.substr(prefix_.size()));
    table_.set(key, pair_key(static_cast<uint32_t>(rank), result));
  }
}

std::vector<Bpe::Symbol> Bpe::characters_of(std::string_view word) const {
  std::vector<Symbol> symbols;
  std::string piece;
  bool after_unknown = false;
  for (size_t at = 0; at < word.size();) {
    const size_t begin = at;
    next_character(word, at);
    piece.clear();
    if (begin > 0) piece = prefix_;
    piece += word.substr(begin, at - begin);
    if (at == word.size()) piece += suffix_;
    auto id = vocabulary().id(piece);
    const bool is_unknown = !id;
    if (is_unknown) id = unknown_;
    const bool fused = is_unknown && after_unknown && fuse_unknown_;
    after_unknown = is_unknown;
    if (!id || fused) continue;
    const auto index = static_cast<int32_t>(symbols.size());
    if (index > 0) symbols.back().next = index;
    symbols.push_back({*id, index - 1, -1});
  }
  return symbols;
}

void Bpe::encode(std::string_view word, std::vector<int32_t>& ids) const {
  if (ignore_merges_) {
    if (const auto id = vocabulary().id(word)) {
      ids.push_back(*id);
      return;
    }
  }
  std::vector<Symbol> symbols = characters_of(word);
  Merger(table_, symbols).run();
  for (const Symbol& symbol : symbols) {
    if (!symbol.gone) ids.push_back(symbol.id);
  }
}

}  // namespace headloom::text

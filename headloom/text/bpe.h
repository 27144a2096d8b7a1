#pragma once

#include "headloom/text/model.h"
#include "headloom/text/pair_table.h"

namespace headloom::text {

// Byte-pair encoding (Sennrich et al., 2016): a word starts as its characters; of all neighbours
// that a merge joins, the merge learned first goes first, from the left. A character that is not in
// the vocabulary becomes unk_token (one for several in a row with fuse_unk), or vanishes without
// one. ignore_merges: a word that is a token needs no merges. Time n log n in the length of a word.
// Refuses dropout and byte_fallback, merges of tokens that are not in the vocabulary, or whose
// result is not.
class Bpe : public Model {
 public:
  Bpe(const Json& part, std::unique_ptr<Vocabulary> vocabulary, Merges merges,
      const std::string& where);
  void encode(std::string_view word, std::vector<int32_t>& ids) const override;
  const Merges* merges() const override { return &merges_; }

 private:
  struct Symbol;
  struct Candidate;
  class Merger;
  std::vector<Symbol> characters_of(std::string_view word) const;
  void build_table(const std::string& where);

  Merges merges_;
  PairTable table_;  // pair of ids -> rank and id of the result
  std::optional<int32_t> unknown_;
  std::string prefix_, suffix_;  // of a continuing character, of the last one
  bool fuse_unknown_ = false, ignore_merges_ = false;
};

}  // namespace headloom::text

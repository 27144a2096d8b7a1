#pragma once

#include "headloom/text/byte_trie.h"
#include "headloom/text/model.h"

namespace headloom::text {

// WordPiece as BERT applies it (Devlin et al., 2019): the longest token that the word starts with,
// then the longest that continues it, each with the prefix "##". A word that cannot be cut so, or
// that is longer than max_input_chars_per_word characters, becomes unk_token, which the vocabulary
// must have.
class WordPiece : public Model {
 public:
  WordPiece(const Json& part, std::unique_ptr<Vocabulary> vocabulary, const std::string& where);
  void encode(std::string_view word, std::vector<int32_t>& ids) const override;

 private:
  ByteTrie trie_;
  std::optional<ByteTrie::Node> continuing_;  // none when no token has the prefix
  int32_t unknown_ = 0;
  size_t longest_word_ = 100;  // characters
};

}  // namespace headloom::text

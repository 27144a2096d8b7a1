#include "headloom/text/wordpiece.h"

#include "headloom/base/check.h"
#include "headloom/text/utf8.h"

namespace headloom::text {

WordPiece::WordPiece(const Json& part, std::unique_ptr<Vocabulary> vocabulary,
                     const std::string& where)
    : Model(std::move(vocabulary)) {
  const auto prefix = optional_value<std::string>(part, "continuing_subword_prefix", "##", where);
  const auto longest = optional_value<int64_t>(part, "max_input_chars_per_word", 100, where);
  HEADLOOM_CHECK(longest >= 0, where, "max_input_chars_per_word from 0 on", cat(longest));
  longest_word_ = static_cast<size_t>(longest);
  const auto unknown = optional_value<std::string>(part, "unk_token", "[UNK]", where);
  const auto id = this->vocabulary().id(unknown);
  HEADLOOM_CHECK(id, where, "unk_token in the vocabulary", cat('"', unknown, '"'));
  unknown_ = *id;
  for (int64_t i = 0; i < this->vocabulary().rows(); ++i) {
    if (const std::string* token = this->vocabulary().token(i)) {
      trie_.add(*token, static_cast<int32_t>(i));
    }
  }
  continuing_ = trie_.find(prefix);
}

void WordPiece::encode(std::string_view word, std::vector<int32_t>& ids) const {
  const size_t before = ids.size();
  bool known = count_characters(word) <= longest_word_;
  for (size_t at = 0; known && at < word.size();) {
    ByteTrie::Match match;
    if (at == 0) {
      match = trie_.longest(word, at);
    } else if (continuing_) {
      match = trie_.longest(word, at, *continuing_);
    }
    known = match.bytes > 0;
    ids.push_back(match.id);
    at += match.bytes;
  }
  if (known) return;
  ids.resize(before);
  ids.push_back(unknown_);
}

}  // namespace headloom::text

#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "headloom/text/byte_trie.h"
#include "headloom/text/json.h"
#include "headloom/text/normalizer.h"
#include "headloom/text/vocabulary.h"

namespace headloom::text {

struct AddedToken {
  int64_t id = 0;
  std::string content;
  bool single_word = false;             // not inside a word
  bool lstrip = false, rstrip = false;  // take the white space beside them
  bool normalized = true;               // found in the text after the normaliser
  bool special = false;                 // left out by decode()
};

std::vector<AddedToken> read_added_tokens(const Json& part, const std::string& where);
Json to_json(const std::vector<AddedToken>& tokens);

// Finds the added tokens of a text before anything else cuts it: the leftmost, the longest of those
// that start there; first in the raw text those that are not `normalized`, then the others in what
// the normaliser makes of the rest.
class AddedTokens {
 public:
  AddedTokens() = default;
  AddedTokens(std::vector<AddedToken> tokens, const Normalizer& normalizer);

  const std::vector<AddedToken>& tokens() const { return tokens_; }

  using OnToken = std::function<void(int64_t id)>;
  using OnText = std::function<void(std::string_view text)>;  // normalised, not empty
  void split(std::string_view text, const Normalizer& normalizer, const OnToken& on_token,
             const OnText& on_text) const;

 private:
  void find(std::string_view text, const ByteTrie& trie, const OnToken& on_token,
            const OnText& on_text) const;

  std::vector<AddedToken> tokens_;
  ByteTrie raw_, normalized_;  // content -> index in tokens_
};

}  // namespace headloom::text

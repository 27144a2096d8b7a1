#include "headloom/text/added_tokens.h"

#include <algorithm>

#include "headloom/base/check.h"
#include "headloom/text/unicode.h"
#include "headloom/text/utf8.h"

namespace headloom::text {
namespace {

// Where the last character of a text that is not empty starts.
size_t last_character(std::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

bool ends_with_word(std::string_view text) {
  if (text.empty()) return false;
  size_t at = last_character(text);
  return is_word_character(next_character(text, at));
}

bool starts_with_word(std::string_view text) {
  size_t at = 0;
  return !text.empty() && is_word_character(next_character(text, at));
}

size_t without_trailing_space(std::string_view text) {
  while (!text.empty()) {
    const size_t start = last_character(text);
    size_t at = start;
    if (!is_white_space(next_character(text, at))) break;
    text = text.substr(0, start);
  }
  return text.size();
}

size_t leading_space(std::string_view text) {
  size_t end = 0;
  for (size_t at = 0; at < text.size(); end = at) {
    if (!is_white_space(next_character(text, at))) break;
  }
  return end;
}

}  // namespace

std::vector<AddedToken> read_added_tokens(const Json& part, const std::string& where) {
  HEADLOOM_CHECK(part.is_array(), where, "a list", part.type_name());
  std::vector<AddedToken> tokens;
  for (const Json& entry : part) {
    AddedToken token;
    token.id = need<int64_t>(entry, "id", where);
    token.content = need<std::string>(entry, "content", where);
    token.single_word = optional_value<bool>(entry, "single_word", false, where);
    token.lstrip = optional_value<bool>(entry, "lstrip", false, where);
    token.rstrip = optional_value<bool>(entry, "rstrip", false, where);
    token.special = optional_value<bool>(entry, "special", false, where);
    token.normalized = optional_value<bool>(entry, "normalized", !token.special, where);
    HEADLOOM_CHECK(!token.content.empty(), where, "a token that is not empty",
                   cat("\"\" with id ", token.id));
    tokens.push_back(std::move(token));
  }
  return tokens;
}

Json to_json(const std::vector<AddedToken>& tokens) {
  Json list = Json::array();
  for (const AddedToken& token : tokens) {
    list.push_back({{"id", token.id},
                    {"content", token.content},
                    {"single_word", token.single_word},
                    {"lstrip", token.lstrip},
                    {"rstrip", token.rstrip},
                    {"normalized", token.normalized},
                    {"special", token.special}});
  }
  return list;
}

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, const Normalizer& normalizer)
    : tokens_(std::move(tokens)) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& token = tokens_[i];
    if (token.normalized) {
      const std::string content = normalizer.apply(token.content);
      if (!content.empty()) normalized_.add(content, static_cast<int32_t>(i));
    } else {
      raw_.add(token.content, static_cast<int32_t>(i));
    }
  }
}

void AddedTokens::find(std::string_view text, const ByteTrie& trie, const OnToken& on_token,
                       const OnText& on_text) const {
  size_t done = 0;
  for (size_t at = 0; at < text.size() && !trie.empty();) {
    const ByteTrie::Match match =
        trie.starts(text[at]) ? trie.longest(text, at) : ByteTrie::Match{};
    if (match.bytes == 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[match.id];
    size_t begin = at, end = at + match.bytes;
    at = end;
    if (token.single_word &&
        (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end)))) {
      continue;
    }
    if (token.lstrip) begin = without_trailing_space(text.substr(0, begin));
    if (token.rstrip) end += leading_space(text.substr(end));
    begin = std::max(begin, done);
    if (begin > done) on_text(text.substr(done, begin - done));
    on_token(token.id);
    done = std::max(done, end);
  }
  if (done < text.size()) on_text(text.substr(done));
}

void AddedTokens::split(std::string_view text, const Normalizer& normalizer,
                        const OnToken& on_token, const OnText& on_text) const {
  find(text, raw_, on_token, [&](std::string_view piece) {
    if (normalizer.empty()) {
      find(piece, normalized_, on_token, on_text);
      return;
    }
    const std::string normalized = normalizer.apply(piece);
    find(normalized, normalized_, on_token, on_text);
  });
}

}  // namespace headloom::text

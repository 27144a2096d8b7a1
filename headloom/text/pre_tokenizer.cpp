#include "headloom/text/pre_tokenizer.h"

#include "headloom/text/unicode.h"
#include "headloom/text/utf8.h"

namespace headloom::text {
namespace {

using Words = std::vector<std::string_view>;

// Bytes of the contraction at `at`, or 0.
size_t contraction(std::string_view text, size_t at) {
  if (text[at] != '\'' || at + 1 >= text.size()) return 0;
  const char first = text[at + 1], second = at + 2 < text.size() ? text[at + 2] : '\0';
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if ((first == 'r' || first == 'v') && second == 'e') return 3;
  return first == 'l' && second == 'l' ? 3 : 0;
}

// The end of the run of characters of one class that starts at `at`; `last` is where its last
// character starts.
size_t run_end(std::string_view text, size_t at, CharacterClass kind, size_t& last) {
  while (at < text.size()) {
    size_t next = at;
    if (class_of(next_character(text, next)) != kind) break;
    last = at;
    at = next;
  }
  return at;
}

// White space leaves its last character to the word that follows, unless it has no other.
size_t space_end(std::string_view text, size_t at) {
  size_t last = at;
  const size_t end = run_end(text, at, CharacterClass::kSpace, last);
  return end == text.size() || last == at ? end : last;
}

size_t gpt2_end(std::string_view text, size_t at) {
  if (const size_t bytes = contraction(text, at)) return at + bytes;
  size_t begin = at, next = at, last;
  CharacterClass kind = class_of(next_character(text, next));
  if (text[at] == ' ' && next < text.size()) {
    begin = next;
    kind = class_of(next_character(text, next));
    if (kind == CharacterClass::kSpace) return space_end(text, at);
  } else if (kind == CharacterClass::kSpace) {
    return space_end(text, at);
  }
  return run_end(text, begin, kind, last);
}

void split_gpt2(std::string_view text, Words& words) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = gpt2_end(text, at);
    words.push_back(text.substr(at, end - at));
    at = end;
  }
}

void split_spaces(std::string_view text, bool at_punctuation, Words& words) {
  size_t begin = 0;
  const auto cut = [&](size_t end, size_t next) {
    if (end > begin) words.push_back(text.substr(begin, end - begin));
    begin = next;
  };
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    const char32_t point = next_character(text, at);
    if (is_white_space(point)) {
      cut(start, at);
    } else if (at_punctuation && is_punctuation(point)) {
      cut(start, start);
      cut(at, at);
    }
  }
  cut(text.size(), text.size());
}

}  // namespace

PreTokenizer::PreTokenizer(const Json& part, const std::string& where) {
  if (part.is_null()) return;
  const std::string type =
      part_type(part, {"ByteLevel", "BertPreTokenizer", "WhitespaceSplit"}, where);
  kind_ = type == "ByteLevel"          ? Kind::kByteLevel
          : type == "BertPreTokenizer" ? Kind::kBert
                                       : Kind::kWhitespace;
  if (kind_ != Kind::kByteLevel) return;
  prefix_space_ = optional_value<bool>(part, "add_prefix_space", true, where);
  use_regex_ = optional_value<bool>(part, "use_regex", true, where);
}

void PreTokenizer::split(std::string_view text, Words& words, std::string& storage) const {
  words.clear();
  if (text.empty()) return;
  if (kind_ == Kind::kBert || kind_ == Kind::kWhitespace) {
    split_spaces(text, kind_ == Kind::kBert, words);
    return;
  }
  if (prefix_space_ && text[0] != ' ') {
    storage.assign(1, ' ');
    storage += text;
    text = storage;
  }
  if (kind_ == Kind::kByteLevel && use_regex_) {
    split_gpt2(text, words);
  } else {
    words.push_back(text);
  }
}

}  // namespace headloom::text

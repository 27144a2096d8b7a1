#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

// Text in headloom is UTF-8 as Unicode defines it (no surrogates, no overlong forms, nothing above
// U+10FFFF). What arrives otherwise is repaired or refused, never passed on:
//   repair   each maximal part of a character that is cut short, and each byte that starts none,
//            becomes U+FFFD. The same text as Python's bytes.decode("utf-8", errors="replace").
//   refuse   an Error that says where (LineReader, lines.h).
// NUL, control characters and U+FEFF inside a text are characters like any other here; a
// tokenizer's normaliser may drop them. lines.h states what happens to ends of lines and byte-order
// marks.
namespace headloom::text {

constexpr char32_t kReplacement = 0xFFFD;

struct Character {
  char32_t point = kReplacement;
  size_t bytes = 1;  // taken from the text, at least 1
  bool valid = false;
};

// The character that starts at `at` < text.size().
Character character_at(std::string_view text, size_t at);

// Reads a character and moves on. `text` is valid.
inline char32_t next_character(std::string_view text, size_t& at) {
  const auto byte = static_cast<unsigned char>(text[at]);
  if (byte < 0x80) {
    ++at;
    return byte;
  }
  const Character character = character_at(text, at);
  at += character.bytes;
  return character.point;
}

void append(std::string& text, char32_t point);
size_t count_characters(std::string_view text);  // of valid text

// The offset of the first byte that is not part of a character.
std::optional<size_t> first_invalid(std::string_view text);
std::string repair(std::string_view text);

// `text` itself when it is valid, else `storage`, which then holds the repaired text.
std::string_view valid_text(std::string_view text, std::string& storage);

}  // namespace headloom::text

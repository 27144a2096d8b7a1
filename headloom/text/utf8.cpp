#include "headloom/text/utf8.h"

#include <cstdint>
#include <cstring>

namespace headloom::text {
namespace {

// Björn Höhrmann's observation: after the first byte, only the second byte's range depends on it.
struct Lead {
  size_t bytes;             // of the whole character; 0: no character starts so
  unsigned char low, high;  // range of the second byte
};

Lead lead_of(unsigned char byte) {
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

// Bytes from `at` on that are ASCII for certain, a multiple of 8.
size_t ascii_run(std::string_view text, size_t at) {
  size_t end = at;
  for (; end + 8 <= text.size(); end += 8) {
    uint64_t word;
    std::memcpy(&word, text.data() + end, 8);
    if (word & 0x8080808080808080u) break;
  }
  return end - at;
}

}  // namespace

Character character_at(std::string_view text, size_t at) {
  const auto first = static_cast<unsigned char>(text[at]);
  if (first < 0x80) return {first, 1, true};
  const Lead lead = lead_of(first);
  if (lead.bytes == 0) return {};
  char32_t point = first & (0x7F >> lead.bytes);
  for (size_t i = 1; i < lead.bytes; ++i) {
    if (at + i >= text.size()) return {kReplacement, i, false};
    const auto byte = static_cast<unsigned char>(text[at + i]);
    const unsigned char low = i == 1 ? lead.low : 0x80, high = i == 1 ? lead.high : 0xBF;
    if (byte < low || byte > high) return {kReplacement, i, false};
    point = (point << 6) | (byte & 0x3F);
  }
  return {point, lead.bytes, true};
}

void append(std::string& text, char32_t point) {
  const auto tail = [&](int shift) { text += static_cast<char>(0x80 | ((point >> shift) & 0x3F)); };
  if (point < 0x80) {
    text += static_cast<char>(point);
  } else if (point < 0x800) {
    text += static_cast<char>(0xC0 | (point >> 6));
    tail(0);
  } else if (point < 0x10000) {
    text += static_cast<char>(0xE0 | (point >> 12));
    tail(6);
    tail(0);
  } else {
    text += static_cast<char>(0xF0 | (point >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

size_t count_characters(std::string_view text) {
  size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return count;
}

std::optional<size_t> first_invalid(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    at += ascii_run(text, at);
    if (at >= text.size()) break;
    const Character character = character_at(text, at);
    if (!character.valid) return at;
    at += character.bytes;
  }
  return std::nullopt;
}

std::string repair(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Character character = character_at(text, at);
    if (character.valid) {
      result.append(text, at, character.bytes);
    } else {
      append(result, kReplacement);
    }
    at += character.bytes;
  }
  return result;
}

std::string_view valid_text(std::string_view text, std::string& storage) {
  if (!first_invalid(text)) return text;
  storage = repair(text);
  return storage;
}

}  // namespace headloom::text

#include "headloom/text/byte_level.h"

#include "headloom/text/utf8.h"

namespace headloom::text {
namespace {

constexpr char32_t kFirstSubstitute = 0x100;

bool stands_for_itself(char32_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) ||
         (byte >= 0xAE && byte <= 0xFF);
}

struct Tables {
  std::array<std::string, 256> characters;
  std::array<int, 512> bytes;  // of a character, or -1
};

Tables make_tables() {
  Tables tables;
  tables.bytes.fill(-1);
  char32_t substitute = kFirstSubstitute;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const char32_t point = stands_for_itself(byte) ? byte : substitute++;
    append(tables.characters[byte], point);
    tables.bytes[point] = static_cast<int>(byte);
  }
  return tables;
}

const Tables& tables() {
  static const Tables made = make_tables();
  return made;
}

}  // namespace

const std::array<std::string, 256>& byte_characters() {
  return tables().characters;
}

std::string to_byte_level(std::string_view bytes) {
  std::string text;
  text.reserve(2 * bytes.size());
  for (const char c : bytes) text += byte_characters()[static_cast<unsigned char>(c)];
  return text;
}

std::optional<std::string> from_byte_level(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const char32_t point = next_character(text, at);
    if (point >= tables().bytes.size() || tables().bytes[point] < 0) return std::nullopt;
    bytes += static_cast<char>(tables().bytes[point]);
  }
  return bytes;
}

}  // namespace headloom::text

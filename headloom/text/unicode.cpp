#include "headloom/text/unicode.h"

#include <utf8proc.h>

#include <array>
#include <cstdlib>
#include <memory>

#include "headloom/base/check.h"
#include "headloom/text/utf8.h"

namespace headloom::text {
namespace {

bool is_ascii_punctuation(char32_t point) {
  return (point > 0x20 && point < 0x30) || (point > 0x39 && point < 0x41) ||
         (point > 0x5A && point < 0x61) || (point > 0x7A && point < 0x7F);
}

utf8proc_category_t category(char32_t point) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(point));
}

CharacterClass look_up(char32_t point) {
  const int kind = category(point);
  if (kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO) return CharacterClass::kLetter;
  if (kind >= UTF8PROC_CATEGORY_ND && kind <= UTF8PROC_CATEGORY_NO) return CharacterClass::kNumber;
  return is_white_space(point) ? CharacterClass::kSpace : CharacterClass::kOther;
}

using Latin = std::array<CharacterClass, 256>;

Latin latin_classes() {
  Latin classes;
  for (size_t i = 0; i < classes.size(); ++i) classes[i] = look_up(static_cast<char32_t>(i));
  return classes;
}

const Latin kLatin = latin_classes();

bool is_ascii(std::string_view text) {
  for (const char c : text) {
    if (static_cast<unsigned char>(c) >= 0x80) return false;
  }
  return true;
}

}  // namespace

CharacterClass class_of(char32_t point) {
  return point < kLatin.size() ? kLatin[point] : look_up(point);
}

bool is_white_space(char32_t point) {
  if (point < 0x80) return point == 0x20 || (point >= 0x09 && point <= 0x0D);
  const utf8proc_category_t kind = category(point);
  return point == 0x85 || kind == UTF8PROC_CATEGORY_ZS || kind == UTF8PROC_CATEGORY_ZL ||
         kind == UTF8PROC_CATEGORY_ZP;
}

bool is_punctuation(char32_t point) {
  if (point < 0x80) return is_ascii_punctuation(point);
  const int kind = category(point);
  return kind >= UTF8PROC_CATEGORY_PC && kind <= UTF8PROC_CATEGORY_PO;
}

bool is_control(char32_t point) {
  if (point < 0x80) {
    return (point < 0x20 && point != '\t' && point != '\n' && point != '\r') || point == 0x7F;
  }
  const int kind = category(point);
  return kind == UTF8PROC_CATEGORY_CC || kind == UTF8PROC_CATEGORY_CF ||
         kind == UTF8PROC_CATEGORY_CO || kind == UTF8PROC_CATEGORY_CS;
}

bool is_combining_mark(char32_t point) {
  return point >= 0x80 && category(point) == UTF8PROC_CATEGORY_MN;
}

bool is_word_character(char32_t point) {
  const int kind = category(point);
  return (kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_NL) ||
         kind == UTF8PROC_CATEGORY_PC;
}

std::string lower_case(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const char32_t point = next_character(text, at);
    if (point == 0x130) {  // the one character whose lower case is two: i and a dot above
      result += "i\u0307";
    } else if (point < 0x80) {
      result += static_cast<char>(point >= 'A' && point <= 'Z' ? point + 32 : point);
    } else {
      append(result, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(point))));
    }
  }
  return result;
}

std::string normal_form(std::string_view text, NormalForm form) {
  if (is_ascii(text)) return std::string(text);
  int options = UTF8PROC_STABLE;
  const bool composed = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  options |= composed ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == NormalForm::kNfkc || form == NormalForm::kNfkd) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* bytes = nullptr;
  const utf8proc_ssize_t size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                             static_cast<utf8proc_ssize_t>(text.size()), &bytes,
                                             static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> owner(bytes, std::free);
  HEADLOOM_CHECK(size >= 0, "normal form", "valid UTF-8", utf8proc_errmsg(size));
  return {reinterpret_cast<const char*>(bytes), static_cast<size_t>(size)};
}

}  // namespace headloom::text

#include "headloom/text/normalizer.h"

#include "headloom/text/unicode.h"
#include "headloom/text/utf8.h"

namespace headloom::text {
namespace {

// The blocks of CJK unified and compatibility ideographs, as the tokenizers package has them: its
// fifth starts at 2B920 where BERT's own starts at 2B820, and its ids are what a file was made for.
bool is_chinese(char32_t point) {
  return (point >= 0x4E00 && point <= 0x9FFF) || (point >= 0x3400 && point <= 0x4DBF) ||
         (point >= 0x20000 && point <= 0x2A6DF) || (point >= 0x2A700 && point <= 0x2B73F) ||
         (point >= 0x2B740 && point <= 0x2B81F) || (point >= 0x2B920 && point <= 0x2CEAF) ||
         (point >= 0xF900 && point <= 0xFAFF) || (point >= 0x2F800 && point <= 0x2FA1F);
}

template <class Change>
std::string each_character(std::string_view text, const Change& change) {
  std::string result;
  result.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t point = next_character(text, at);
    change(point, text.substr(begin, at - begin), result);
  }
  return result;
}

std::string clean(std::string_view text) {
  return each_character(text, [](char32_t point, std::string_view bytes, std::string& result) {
    if (point == 0 || point == kReplacement || is_control(point)) return;
    if (is_white_space(point)) {
      result += ' ';
    } else {
      result += bytes;
    }
  });
}

std::string space_out_chinese(std::string_view text) {
  return each_character(text, [](char32_t point, std::string_view bytes, std::string& result) {
    if (point < 0x3400 || !is_chinese(point)) {
      result += bytes;
      return;
    }
    result += ' ';
    result += bytes;
    result += ' ';
  });
}

std::string drop_marks(std::string_view text) {
  return each_character(text, [](char32_t point, std::string_view bytes, std::string& result) {
    if (!is_combining_mark(point)) result += bytes;
  });
}

std::string strip_accents(std::string_view text) {
  return drop_marks(normal_form(text, NormalForm::kNfd));
}

}  // namespace

Normalizer::Normalizer(const Json& part, const std::string& where) {
  if (!part.is_null()) add(part, where);
}

void Normalizer::add_bert(const Json& part, const std::string& where) {
  const bool lowercase = optional_value<bool>(part, "lowercase", true, where);
  if (optional_value<bool>(part, "clean_text", true, where)) steps_.push_back(clean);
  if (optional_value<bool>(part, "handle_chinese_chars", true, where)) {
    steps_.push_back(space_out_chinese);
  }
  if (optional_value<bool>(part, "strip_accents", lowercase, where)) {
    steps_.push_back(strip_accents);
  }
  if (lowercase) steps_.push_back(lower_case);
}

void Normalizer::add(const Json& part, const std::string& where) {
  const std::string type = part_type(
      part,
      {"BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Sequence"},
      where);
  const auto form = [&](NormalForm to) {
    steps_.push_back([to](std::string_view text) { return normal_form(text, to); });
  };
  if (type == "BertNormalizer") add_bert(part, where);
  if (type == "NFC") form(NormalForm::kNfc);
  if (type == "NFD") form(NormalForm::kNfd);
  if (type == "NFKC") form(NormalForm::kNfkc);
  if (type == "NFKD") form(NormalForm::kNfkd);
  if (type == "Lowercase") steps_.push_back(lower_case);
  if (type == "StripAccents") steps_.push_back(drop_marks);
  if (type != "Sequence") return;
  for (const Json& step : need<Json>(part, "normalizers", where)) add(step, where);
}

std::string Normalizer::apply(std::string_view text) const {
  std::string result(text);
  for (const Step& step : steps_) result = step(result);
  return result;
}

}  // namespace headloom::text

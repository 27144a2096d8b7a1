#include "headloom/text/decoder.h"

#include <utility>

#include "headloom/text/byte_level.h"

namespace headloom::text {
namespace {

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
}

void clean_up(std::string& text) {
  static const std::pair<const char*, const char*> kChanges[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kChanges) replace_all(text, from, to);
}

}  // namespace

Decoder::Decoder(const Json& part, const std::string& where) {
  if (part.is_null()) return;
  const std::string type = part_type(part, {"ByteLevel", "WordPiece", "BPEDecoder"}, where);
  if (type == "ByteLevel") kind_ = Kind::kByteLevel;
  if (type == "WordPiece") {
    kind_ = Kind::kWordPiece;
    mark_ = optional_value<std::string>(part, "prefix", "##", where);
    cleanup_ = optional_value<bool>(part, "cleanup", true, where);
  }
  if (type == "BPEDecoder") {
    kind_ = Kind::kSuffix;
    mark_ = optional_value<std::string>(part, "suffix", "</w>", where);
  }
}

std::string Decoder::join(const std::vector<std::string>& tokens) const {
  std::string text;
  for (size_t i = 0; i < tokens.size(); ++i) {
    std::string token = tokens[i];
    switch (kind_) {
      case Kind::kByteLevel:
        if (auto bytes = from_byte_level(token)) token = std::move(*bytes);
        break;
      case Kind::kWordPiece:
        if (i > 0 && token.starts_with(mark_)) {
          token.erase(0, mark_.size());
        } else if (i > 0) {
          token.insert(0, " ");
        }
        if (cleanup_) clean_up(token);
        break;
      case Kind::kSuffix:
        if (!mark_.empty()) replace_all(token, mark_, i + 1 == tokens.size() ? "" : " ");
        break;
      case Kind::kSpaces:
        if (i > 0) token.insert(0, " ");
    }
    text += token;
  }
  return text;
}

}  // namespace headloom::text

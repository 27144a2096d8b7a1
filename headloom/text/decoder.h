#pragma once

#include <string>
#include <vector>

#include "headloom/text/json.h"

namespace headloom::text {

// The "decoder" of a tokenizer.json: joins tokens into text. ByteLevel; WordPiece (drops the
// prefix, puts spaces between words, cleanup pulls punctuation to the word before it); BPEDecoder
// (the suffix of a word becomes a space); null joins with spaces. Others are refused by name.
class Decoder {
 public:
  Decoder() = default;
  explicit Decoder(const Json& part, const std::string& where);
  std::string join(const std::vector<std::string>& tokens) const;  // bytes, perhaps no valid text

 private:
  enum class Kind { kSpaces, kByteLevel, kWordPiece, kSuffix };
  Kind kind_ = Kind::kSpaces;
  std::string mark_;  // prefix or suffix
  bool cleanup_ = true;
};

}  // namespace headloom::text

#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "headloom/text/json.h"

namespace headloom::text {

// The "pre_tokenizer" of a tokenizer.json: cuts text into the words that the model sees.
//   ByteLevel         GPT-2's rule (Radford et al., 2019): contractions, then letters, numbers or
//                     other signs with the space before them, then white space,
//                       's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//                     or, with use_regex false, no cut at all; every byte then becomes one
//                     printable character (byte_level.h). add_prefix_space puts a space in front of
//                     a piece that has none.
//   BertPreTokenizer  cuts at white space, which is dropped, and around each punctuation sign.
//   WhitespaceSplit   cuts at white space, which is dropped.
//   null              one word. Others are refused by name.
class PreTokenizer {
 public:
  PreTokenizer() = default;
  explicit PreTokenizer(const Json& part, const std::string& where);

  // The words of `text`, valid UTF-8, as parts of it or of `storage`, which must outlive them.
  void split(std::string_view text, std::vector<std::string_view>& words,
             std::string& storage) const;
  bool byte_level() const { return kind_ == Kind::kByteLevel; }

 private:
  enum class Kind { kNone, kByteLevel, kBert, kWhitespace };
  Kind kind_ = Kind::kNone;
  bool prefix_space_ = false, use_regex_ = true;
};

}  // namespace headloom::text

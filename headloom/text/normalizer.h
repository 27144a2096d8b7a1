#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "headloom/text/json.h"

namespace headloom::text {

// The "normalizer" of a tokenizer.json: null, BertNormalizer, NFC, NFD, NFKC, NFKD, Lowercase,
// StripAccents, or a Sequence of these. Others are refused by name.
//
// BertNormalizer (Devlin et al., 2019), in this order: clean_text drops NUL, U+FFFD and control
// characters and turns white space into spaces; handle_chinese_chars puts spaces around CJK
// ideographs; strip_accents (null: as lowercase) drops combining marks of the decomposed text;
// lowercase.
class Normalizer {
 public:
  Normalizer() = default;
  explicit Normalizer(const Json& part, const std::string& where);

  bool empty() const { return steps_.empty(); }
  std::string apply(std::string_view text) const;  // of valid text

 private:
  using Step = std::function<std::string(std::string_view)>;
  void add(const Json& part, const std::string& where);
  void add_bert(const Json& part, const std::string& where);

  std::vector<Step> steps_;
};

}  // namespace headloom::text

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "headloom/text/json.h"

namespace headloom::text {

struct Encoding {
  std::vector<int64_t> ids;
  std::vector<int64_t> types;  // of each token: 0 for the first text, 1 for the second
};

// The "post_processor" of a tokenizer.json: puts special tokens around one text or two.
// TemplateProcessing, BertProcessing ([CLS] A [SEP] B [SEP]), RobertaProcessing (<s> A </s></s> B
// </s>, all types 0), ByteLevel and null (no special tokens: A B), or a Sequence with one that does
// something. Others are refused by name.
class PostProcessor {
 public:
  PostProcessor();
  explicit PostProcessor(const Json& part, const std::string& where);

  Encoding single(const std::vector<int64_t>& ids) const;
  Encoding pair(const std::vector<int64_t>& first, const std::vector<int64_t>& second) const;
  int64_t largest_id() const;  // of the special tokens, -1 without any

 private:
  struct Piece {
    int source;                // 0 or 1: the text; -1: special tokens
    std::vector<int64_t> ids;  // of them
    int64_t type;
  };
  using Template = std::vector<Piece>;
  void read(const Json& part, const std::string& where);
  Encoding fill(const Template& pieces, const std::vector<int64_t>* first,
                const std::vector<int64_t>* second) const;
  static Template read_template(const Json& part, const char* key, const std::string& where);

  Template single_, pair_;
  bool has_special_ = false;
};

}  // namespace headloom::text

#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "headloom/text/tokenizer.h"

// B batch, S source tokens, T target tokens.
namespace headloom::tasks::translation {

// The tokenizers of both languages, one and the same for a joint vocabulary, and what they call
// begin, end and padding.
struct Vocabularies {
  std::shared_ptr<const text::Tokenizer> source, target;
  int64_t source_end = 0, target_begin = 0, target_end = 0;
  int64_t source_pad = 0;      // fills rows; any token serves, for padding is masked
  std::vector<int64_t> never;  // special tokens that no translation holds
  bool is_joint() const { return source == target; }
};
// Refuses tokenizers without an end, or a target's without a begin. `where` starts the message.
Vocabularies make_vocabularies(std::shared_ptr<const text::Tokenizer> source,
                               std::shared_ptr<const text::Tokenizer> target,
                               const std::string& where);

// Token ids of many texts, one after the other in memory.
class TokenRows {
 public:
  void add(const std::vector<int64_t>& ids);
  int64_t size() const { return static_cast<int64_t>(begins_.size()) - 1; }
  int64_t length(int64_t row) const { return begins_[row + 1] - begins_[row]; }
  const int32_t* row(int64_t row) const { return ids_.data() + begins_[row]; }

 private:
  std::vector<int32_t> ids_;
  std::vector<int64_t> begins_{0};
};

// The lines of a text file under the policy of text/lines.h.
std::vector<std::string> read_lines(const std::filesystem::path& path);

// Two texts with as many lines, or Error.
struct LinePairs {
  std::vector<std::string> source, target;
};
LinePairs read_line_pairs(const std::filesystem::path& source, const std::filesystem::path& target);

// Tokens of pairs, without begin and end.
struct TokenPairs {
  TokenRows source, target;
  int64_t size() const { return source.size(); }
};
TokenPairs tokenize(const LinePairs& lines, const Vocabularies& vocabularies);

// Rows of source tokens with their end, [B, S], filled up with `pad`; and where they are filled,
// [B, S] bool, undefined when nowhere.
std::pair<at::Tensor, at::Tensor> source_batch(const std::vector<std::vector<int64_t>>& rows,
                                               const Vocabularies& vocabularies);

}  // namespace headloom::tasks::translation

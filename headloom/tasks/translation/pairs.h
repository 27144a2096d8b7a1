#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "headloom/tasks/vocabularies.h"

namespace headloom::tasks::translation {

// Token ids of many texts, one after the other in memory.
class TokenRows {
 public:
  void add(const std::vector<int64_t>& ids);
  int64_t size() const { return static_cast<int64_t>(begins_.size()) - 1; }
  int64_t length(int64_t row) const { return begins_[row + 1] - begins_[row]; }
  std::vector<int64_t> row(int64_t row) const;

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

}  // namespace headloom::tasks::translation

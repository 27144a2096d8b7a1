#include "headloom/tasks/translation/pairs.h"

#include "headloom/base/check.h"
#include "headloom/tasks/files.h"
#include "headloom/text/lines.h"

namespace headloom::tasks::translation {

void TokenRows::add(const std::vector<int64_t>& ids) {
  for (const int64_t id : ids) ids_.push_back(static_cast<int32_t>(id));
  begins_.push_back(static_cast<int64_t>(ids_.size()));
}

std::vector<int64_t> TokenRows::row(int64_t row) const {
  return {ids_.begin() + begins_[row], ids_.begin() + begins_[row + 1]};
}

std::vector<std::string> read_lines(const std::filesystem::path& path) {
  text::LineReader reader(text::source_of(read_file(path)), path.string());
  std::vector<std::string> lines;
  for (std::string line; reader.next(line);) lines.push_back(line);
  return lines;
}

LinePairs read_line_pairs(const std::filesystem::path& source,
                          const std::filesystem::path& target) {
  LinePairs pairs{read_lines(source), read_lines(target)};
  HEADLOOM_CHECK(pairs.source.size() == pairs.target.size(), target.string(),
                 cat(pairs.source.size(), " lines, as many as ", source.string()),
                 cat(pairs.target.size()));
  return pairs;
}

TokenPairs tokenize(const LinePairs& lines, const Vocabularies& vocabularies) {
  TokenPairs pairs;
  for (size_t i = 0; i < lines.source.size(); ++i) {
    pairs.source.add(vocabularies.source->encode(lines.source[i]));
    pairs.target.add(vocabularies.target->encode(lines.target[i]));
  }
  return pairs;
}

}  // namespace headloom::tasks::translation

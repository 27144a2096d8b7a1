#include "headloom/tasks/translation/pairs.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "headloom/base/check.h"
#include "headloom/tasks/files.h"
#include "headloom/text/lines.h"

namespace headloom::tasks::translation {

using Role = text::Tokenizer::Role;

Vocabularies make_vocabularies(std::shared_ptr<const text::Tokenizer> source,
                               std::shared_ptr<const text::Tokenizer> target,
                               const std::string& where) {
  Vocabularies made;
  made.source_end = source->need_id(Role::kEnd, where);
  made.target_begin = target->need_id(Role::kBegin, where);
  made.target_end = target->need_id(Role::kEnd, where);
  made.source_pad = source->id(Role::kPad).value_or(made.source_end);
  for (int64_t id = 0; id < target->size(); ++id) {
    if (id != made.target_end && target->is_special(id)) made.never.push_back(id);
  }
  made.source = std::move(source);
  made.target = std::move(target);
  return made;
}

void TokenRows::add(const std::vector<int64_t>& ids) {
  for (const int64_t id : ids) ids_.push_back(static_cast<int32_t>(id));
  begins_.push_back(static_cast<int64_t>(ids_.size()));
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

std::pair<at::Tensor, at::Tensor> source_batch(const std::vector<std::vector<int64_t>>& rows,
                                               const Vocabularies& vocabularies) {
  size_t longest = 0, shortest = rows.empty() ? 0 : rows[0].size();
  for (const auto& row : rows) {
    longest = std::max(longest, row.size());
    shortest = std::min(shortest, row.size());
  }
  const auto count = static_cast<int64_t>(rows.size()), width = static_cast<int64_t>(longest) + 1;
  const at::Tensor tokens = at::full({count, width}, vocabularies.source_pad, at::kLong);
  const at::Tensor padding = at::zeros({count, width}, at::kBool);
  for (int64_t b = 0; b < count; ++b) {
    int64_t* out = tokens.data_ptr<int64_t>() + b * width;
    out = std::copy(rows[b].begin(), rows[b].end(), out);
    *out = vocabularies.source_end;
    const auto length = static_cast<int64_t>(rows[b].size()) + 1;
    std::fill(padding.data_ptr<bool>() + b * width + length,
              padding.data_ptr<bool>() + (b + 1) * width, true);
  }
  return {tokens, shortest == longest ? at::Tensor() : padding};
}

}  // namespace headloom::tasks::translation

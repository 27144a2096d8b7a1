#include "headloom/tasks/vocabularies.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace headloom::tasks {
namespace {

using Role = text::Tokenizer::Role;

size_t longest_of(const TokenLists& rows) {
  size_t longest = 0;
  for (const auto& row : rows) longest = std::max(longest, row.size());
  return longest;
}

}  // namespace

std::vector<int64_t> ids_of_no_text(const text::Tokenizer& target, int64_t end, int64_t rows) {
  std::vector<int64_t> ids;
  for (int64_t id = 0; id < rows; ++id) {
    const bool text = id < target.size() && target.token(id) && !target.is_special(id);
    if (id != end && !text) ids.push_back(id);
  }
  return ids;
}

Vocabularies make_vocabularies(std::shared_ptr<const text::Tokenizer> source,
                               std::shared_ptr<const text::Tokenizer> target,
                               const std::string& where) {
  Vocabularies made;
  made.source_end = source->need_id(Role::kEnd, where);
  made.target_begin = target->need_id(Role::kBegin, where);
  made.target_end = target->need_id(Role::kEnd, where);
  made.source_pad = source->id(Role::kPad).value_or(made.source_end);
  made.never = ids_of_no_text(*target, made.target_end, target->size());
  made.source = std::move(source);
  made.target = std::move(target);
  return made;
}

std::pair<at::Tensor, at::Tensor> source_batch(const TokenLists& rows,
                                               const Vocabularies& vocabularies) {
  size_t shortest = rows.empty() ? 0 : rows[0].size();
  for (const auto& row : rows) shortest = std::min(shortest, row.size());
  const size_t longest = longest_of(rows);
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

TargetRows target_rows(const TokenLists& rows, const Vocabularies& vocabularies) {
  const auto count = static_cast<int64_t>(rows.size());
  const int64_t width = static_cast<int64_t>(longest_of(rows)) + 1;  // T
  TargetRows made;
  made.read = at::full({count, width}, vocabularies.target_end, at::kLong);
  made.predicted = at::full({count, width}, -100, at::kLong);
  for (int64_t b = 0; b < count; ++b) {
    int64_t* read = made.read.data_ptr<int64_t>() + b * width;
    int64_t* predicted = made.predicted.data_ptr<int64_t>() + b * width;
    *read = vocabularies.target_begin;
    std::copy(rows[b].begin(), rows[b].end(), read + 1);
    *std::copy(rows[b].begin(), rows[b].end(), predicted) = vocabularies.target_end;
    made.tokens += static_cast<int64_t>(rows[b].size()) + 1;
  }
  return made;
}

Batch pair_batch(const TokenLists& sources, const TokenLists& targets,
                 const Vocabularies& vocabularies) {
  Batch batch;
  std::tie(batch.tokens, batch.masks.key_padding_mask) = source_batch(sources, vocabularies);
  TargetRows rows = target_rows(targets, vocabularies);
  batch.decoder_tokens = std::move(rows.read);
  batch.targets = std::move(rows.predicted);
  batch.token_count = rows.tokens;
  return batch;
}

}  // namespace headloom::tasks

#include "headloom/tasks/examples.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace headloom::tasks {
namespace {

int64_t length_of(const Example& example) {
  return static_cast<int64_t>(std::max(example.tokens.size(), example.second.size()));
}

}  // namespace

std::vector<int64_t> lengths(const Examples& examples) {
  std::vector<int64_t> values;
  values.reserve(examples.size());
  for (const Example& example : examples) values.push_back(length_of(example));
  return values;
}

Batch make_batch(const Examples& examples, const std::vector<int64_t>& rows,
                 const BatchForm& form) {
  int64_t longest = 0;
  for (const int64_t row : rows) longest = std::max(longest, length_of(examples[row]));
  const auto size = static_cast<int64_t>(rows.size());
  Batch batch;
  batch.tokens = at::zeros({form.pairs ? 2 * size : size, longest}, at::kLong);
  batch.targets = at::empty({size}, at::kLong);
  const at::Tensor padding = at::ones(batch.tokens.sizes(), at::kBool);
  const auto put = [&](int64_t row, const std::vector<uint8_t>& bytes) {
    int64_t* tokens = batch.tokens.data_ptr<int64_t>() + row * longest;
    for (const uint8_t byte : bytes) *tokens++ = byte + form.shift;
    std::fill_n(padding.data_ptr<bool>() + row * longest, bytes.size(), false);
    batch.token_count += static_cast<int64_t>(bytes.size());
  };
  for (int64_t i = 0; i < size; ++i) {
    const Example& example = examples[rows[i]];
    put(i, example.tokens);
    if (form.pairs) put(size + i, example.second);
    batch.targets.data_ptr<int64_t>()[i] = example.value;
  }
  if (form.mask_zeros) padding.logical_or_(batch.tokens == 0);
  if (padding.any().item<bool>()) batch.masks.key_padding_mask = padding;
  return batch;
}

}  // namespace headloom::tasks

#include "headloom/nn/beam_candidates.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/log_softmax.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "headloom/base/check.h"

namespace headloom::nn {
namespace {

// Few of many values pass the worst that is kept, so that inserting costs little.
template <class T>
std::vector<NextTokens::Choice> best_of_row(const T* values, int64_t size, int64_t count) {
  std::vector<NextTokens::Choice> kept;
  kept.reserve(count + 1);
  T worst = -std::numeric_limits<T>::infinity();
  for (int64_t token = 0; token < size; ++token) {
    if (!(values[token] > worst)) continue;
    const auto value = static_cast<double>(values[token]);
    const auto place = std::find_if(kept.begin(), kept.end(), [&](const NextTokens::Choice& other) {
      return other.log_probability < value;
    });
    kept.insert(place, {token, value});
    if (static_cast<int64_t>(kept.size()) > count) kept.pop_back();
    if (static_cast<int64_t>(kept.size()) == count) {
      worst = static_cast<T>(kept.back().log_probability);
    }
  }
  return kept;
}

}  // namespace

NextTokens::NextTokens(const at::Tensor& logits) {
  const at::ScalarType type = logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  values_ = at::log_softmax(logits.to(type), 1).to(at::kCPU).contiguous();
  // One NaN makes a row of them.
  for (int64_t row = 0; row < values_.size(0); ++row) {
    HEADLOOM_CHECK(!std::isnan(log_probability(row, 0)), "beam search", "finite logits",
                   cat("NaN or infinity in row ", row));
  }
}

double NextTokens::log_probability(int64_t row, int64_t token) const {
  const int64_t at = row * values_.size(1) + token;
  return values_.scalar_type() == at::kDouble
             ? values_.const_data_ptr<double>()[at]
             : static_cast<double>(values_.const_data_ptr<float>()[at]);
}

void NextTokens::forbid(int64_t row, int64_t token) {
  const int64_t at = row * values_.size(1) + token;
  AT_DISPATCH_FLOATING_TYPES(values_.scalar_type(), "forbid", [&] {
    values_.data_ptr<scalar_t>()[at] = -std::numeric_limits<scalar_t>::infinity();
  });
}

std::vector<NextTokens::Choice> NextTokens::best(int64_t row, int64_t count) const {
  const int64_t size = values_.size(1);
  return AT_DISPATCH_FLOATING_TYPES(values_.scalar_type(), "best", [&] {
    return best_of_row(values_.const_data_ptr<scalar_t>() + row * size, size, count);
  });
}

std::vector<int64_t> repeating_tokens(const std::vector<int64_t>& tokens, int64_t n) {
  std::vector<int64_t> repeating;
  const auto length = static_cast<int64_t>(tokens.size());
  if (n <= 0 || length + 1 < n) return repeating;
  const auto tail = tokens.end() - (n - 1);
  for (int64_t begin = 0; begin + n <= length; ++begin) {
    const auto candidate = tokens.begin() + begin;
    if (std::equal(tail, tokens.end(), candidate)) repeating.push_back(candidate[n - 1]);
  }
  return repeating;
}

}  // namespace headloom::nn

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

// R rows, V vocabulary.
namespace headloom::nn {

// The log probabilities of what may follow each row, on the processor.
class NextTokens {
 public:
  explicit NextTokens(const at::Tensor& logits);  // [R, V]

  double log_probability(int64_t row, int64_t token) const;
  void forbid(int64_t row, int64_t token);

  struct Choice {
    int64_t token;
    double log_probability;
  };
  // The `count` most probable tokens of a row that are not forbidden, best first, the smaller token
  // among equals; fewer when there are fewer.
  std::vector<Choice> best(int64_t row, int64_t count) const;

 private:
  at::Tensor values_;  // [R, V], float32 or float64
};

// The tokens that would make n tokens in a row appear twice.
std::vector<int64_t> repeating_tokens(const std::vector<int64_t>& tokens, int64_t n);

}  // namespace headloom::nn

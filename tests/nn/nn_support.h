#pragma once

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "headloom/base/check.h"
#include "headloom/mechanisms/registry.h"
#include "headloom/nn/language_model.h"

// B batch, T tokens, C model width.
namespace headloom::nn {

inline TransformerConfig small_config() {
  TransformerConfig config;
  config.vocabulary = 11;
  config.dim = 16;
  config.layers = 2;
  config.heads = 2;
  config.ffn = 24;
  config.max_length = 32;
  return config;
}

inline TransformerConfig causal_config() {
  TransformerConfig config = small_config();
  config.causal = true;
  return config;
}

inline at::Tensor random_tokens(int64_t batch, int64_t length, int64_t vocabulary = 11) {
  return at::randint(vocabulary, {batch, length}, at::kLong);
}

// The message of the Error that `body` raises; a test failure and "" when it raises none.
inline std::string refusal(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "nothing was refused";
  return "";
}

// Two ways to compute the same outputs differ by the order of their sums. A value passes through
// about 2 C + 2 ffn terms a layer, each with a relative error of eps, and errors of independent
// sign add as the square root; 8 covers the tail and the norms' division by the deviation.
inline double rounding_bound(const at::Tensor& expected, const TransformerConfig& config) {
  const double terms = static_cast<double>(config.layers * 2 * (config.dim + config.ffn));
  const double eps = expected.scalar_type() == at::kDouble ? std::numeric_limits<double>::epsilon()
                                                           : std::numeric_limits<float>::epsilon();
  const double scale =
      expected.numel() == 0 ? 0.0 : expected.abs().max().to(at::kDouble).item<double>();
  return 8.0 * eps * std::sqrt(terms) * scale;
}

inline void expect_close(const at::Tensor& found, const at::Tensor& expected,
                         const TransformerConfig& config) {
  ASSERT_EQ(found.sizes(), expected.sizes());
  ASSERT_EQ(found.scalar_type(), expected.scalar_type());
  if (expected.numel() == 0) return;
  // A NaN makes the comparison false and so fails.
  const double difference = (found - expected).abs().max().item<double>();
  EXPECT_TRUE(difference <= rounding_bound(expected, config))
      << "difference " << difference << ", bound " << rounding_bound(expected, config);
}

inline std::vector<std::string> mechanism_names() {
  std::vector<std::string> names;
  for (const Mechanism* mechanism : mechanisms()) names.push_back(mechanism->name);
  return names;
}

// A Transformer in float64 and evaluation mode, or why the mechanism refuses the form.
struct Built {
  std::shared_ptr<Transformer> model;
  std::string refusal;
};

inline Built build_transformer(const TransformerConfig& config) {
  try {
    auto model = std::make_shared<Transformer>(config);
    model->to(at::kDouble);
    model->eval();
    return {model, ""};
  } catch (const Error& error) {
    return {nullptr, error.what()};
  }
}

}  // namespace headloom::nn

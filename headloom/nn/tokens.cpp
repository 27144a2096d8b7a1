#include "headloom/nn/tokens.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "headloom/base/check.h"
#include "headloom/base/nearest.h"

namespace headloom::nn {

using at::Tensor;

void check_positive(const char* where, const char* key, int64_t value) {
  HEADLOOM_CHECK(value > 0, where, cat(key, " of at least 1"), cat(key, " = ", value));
}

void check_probability(const char* where, const char* key, double value) {
  HEADLOOM_CHECK(value >= 0.0 && value < 1.0, where, cat(key, " in [0, 1)"),
                 cat(key, " = ", value));
}

void check_choice(const char* where, const char* key, const std::string& value,
                  const std::vector<std::string>& allowed) {
  if (std::find(allowed.begin(), allowed.end(), value) != allowed.end()) return;
  const std::string nearest = nearest_name(value, allowed);
  fail(where, cat(key, " to be one of ", join(allowed)), cat('"', value, '"'),
       nearest.empty() ? "" : cat("Did you mean \"", nearest, "\"?"));
}

void check_tokens(const char* where, const Tensor& tokens, int64_t vocabulary) {
  HEADLOOM_CHECK(tokens.defined() && tokens.dim() == 2 && tokens.scalar_type() == at::kLong, where,
                 "tokens of shape [B, T] and dtype int64",
                 tokens.defined() ? cat("shape ", tokens.sizes(), ", ", tokens.scalar_type())
                                  : std::string("none"));
  if (tokens.numel() == 0 || !tokens.device().is_cpu()) return;
  const auto [low, high] = tokens.aminmax();
  const int64_t smallest = low.item<int64_t>(), largest = high.item<int64_t>();
  HEADLOOM_CHECK(smallest >= 0 && largest < vocabulary, where,
                 cat("token ids in [0, ", vocabulary, ")"),
                 cat("token id ", smallest < 0 ? smallest : largest));
}

void check_length(const char* where, int64_t longest, int64_t max_length,
                  const std::string& found) {
  HEADLOOM_CHECK(longest <= max_length, where,
                 cat("sequences of at most max_length = ", max_length, " tokens"), found,
                 "Cut the sequence, or build the model with a larger max_length.");
}

Tensor sinusoidal_table(int64_t max_length, int64_t dim) {
  const Tensor table = at::empty({max_length, dim}, at::kDouble);
  auto values = table.accessor<double, 2>();
  for (int64_t channel = 0; channel < dim; ++channel) {
    const int64_t even = channel - channel % 2;
    const double rate = std::pow(10000.0, -static_cast<double>(even) / static_cast<double>(dim));
    for (int64_t t = 0; t < max_length; ++t) {
      const double angle = static_cast<double>(t) * rate;
      values[t][channel] = channel == even ? std::sin(angle) : std::cos(angle);
    }
  }
  return table.to(at::typeMetaToScalarType(at::get_default_dtype()));
}

}  // namespace headloom::nn

#include <algorithm>

#include "headloom/base/check.h"
#include "headloom/base/nearest.h"
#include "headloom/mechanisms/registry.h"
#include "headloom/nn/transformer.h"

namespace headloom::nn {
namespace {

constexpr const char* kWhere = "transformer";

void check_positive(const char* key, int64_t value) {
  HEADLOOM_CHECK(value > 0, kWhere, cat(key, " of at least 1"), cat(key, " = ", value));
}

void check_probability(const char* key, double value) {
  HEADLOOM_CHECK(value >= 0.0 && value < 1.0, kWhere, cat(key, " in [0, 1)"),
                 cat(key, " = ", value));
}

void check_choice(const char* key, const std::string& value,
                  const std::vector<std::string>& allowed) {
  if (std::find(allowed.begin(), allowed.end(), value) != allowed.end()) return;
  const std::string nearest = nearest_name(value, allowed);
  fail(kWhere, cat(key, " to be one of ", join(allowed)), cat('"', value, '"'),
       nearest.empty() ? "" : cat("Did you mean \"", nearest, "\"?"));
}

}  // namespace

void check_config(const TransformerConfig& config) {
  check_positive("vocabulary", config.vocabulary);
  check_positive("dim", config.dim);
  check_positive("layers", config.layers);
  check_positive("heads", config.heads);
  check_positive("ffn", config.ffn);
  check_positive("max_length", config.max_length);
  HEADLOOM_CHECK(config.dim % config.heads == 0, kWhere, "heads to divide dim",
                 cat("dim = ", config.dim, ", heads = ", config.heads));
  check_choice("norm", config.norm, {"pre", "post"});
  check_choice("positions", config.positions, {"learned", "sinusoidal", "none"});
  check_choice("activation", config.activation, {"gelu", "relu"});
  check_probability("dropout", config.dropout);
  check_probability("mixing_dropout", config.mixing_dropout);
  find_mechanism(config.mixer);
}

}  // namespace headloom::nn

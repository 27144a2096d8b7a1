#include "headloom/base/check.h"
#include "headloom/mechanisms/registry.h"
#include "headloom/nn/tokens.h"
#include "headloom/nn/transformer.h"

namespace headloom::nn {
namespace {

constexpr const char* kWhere = "transformer";

}  // namespace

void check_config(const TransformerConfig& config) {
  check_positive(kWhere, "vocabulary", config.vocabulary);
  check_positive(kWhere, "dim", config.dim);
  check_positive(kWhere, "layers", config.layers);
  check_positive(kWhere, "heads", config.heads);
  check_positive(kWhere, "ffn", config.ffn);
  check_positive(kWhere, "max_length", config.max_length);
  HEADLOOM_CHECK(config.dim % config.heads == 0, kWhere, "heads to divide dim",
                 cat("dim = ", config.dim, ", heads = ", config.heads));
  HEADLOOM_CHECK(config.segments >= 0, kWhere, "segments of at least 0",
                 cat("segments = ", config.segments));
  HEADLOOM_CHECK(config.norm_eps > 0.0, kWhere, "norm_eps above 0",
                 cat("norm_eps = ", config.norm_eps));
  check_choice(kWhere, "norm", config.norm, {"pre", "post"});
  check_choice(kWhere, "positions", config.positions, {"learned", "sinusoidal", "none"});
  check_choice(kWhere, "norm_type", config.norm_type, {"layer", "rms"});
  check_choice(kWhere, "activation", config.activation, {"gelu", "relu", "gated_gelu"});
  check_probability(kWhere, "dropout", config.dropout);
  check_probability(kWhere, "mixing_dropout", config.mixing_dropout);
  find_mechanism(config.mixer);
}

}  // namespace headloom::nn

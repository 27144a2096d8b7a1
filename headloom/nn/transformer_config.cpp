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
  check_choice(kWhere, "norm", config.norm, {"pre", "post"});
  check_choice(kWhere, "positions", config.positions, {"learned", "sinusoidal", "none"});
  check_choice(kWhere, "activation", config.activation, {"gelu", "relu"});
  check_probability(kWhere, "dropout", config.dropout);
  check_probability(kWhere, "mixing_dropout", config.mixing_dropout);
  find_mechanism(config.mixer);
}

}  // namespace headloom::nn

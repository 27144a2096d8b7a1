#include "headloom/base/check.h"
#include "headloom/mechanisms/registry.h"
#include "headloom/nn/encoder_decoder.h"
#include "headloom/nn/tokens.h"

namespace headloom::nn {
namespace {

constexpr const char* kWhere = "encoder-decoder";

void check_mixer(const char* key, const MixerChoice& choice, int64_t dim) {
  HEADLOOM_CHECK(choice.heads > 0 && dim % choice.heads == 0, kWhere,
                 cat(key, ".heads to divide dim"),
                 cat("dim = ", dim, ", ", key, ".heads = ", choice.heads));
  check_probability(kWhere, key, choice.dropout);
  find_mechanism(choice.name);
}

}  // namespace

void check_config(const EncoderDecoderConfig& config) {
  check_positive(kWhere, "source_vocabulary", config.source_vocabulary);
  check_positive(kWhere, "target_vocabulary", config.target_vocabulary);
  check_positive(kWhere, "dim", config.dim);
  check_positive(kWhere, "ffn", config.ffn);
  check_positive(kWhere, "encoder_layers", config.encoder_layers);
  check_positive(kWhere, "decoder_layers", config.decoder_layers);
  check_positive(kWhere, "max_length", config.max_length);
  check_choice(kWhere, "norm", config.norm, {"post", "pre"});
  check_choice(kWhere, "positions", config.positions, {"sinusoidal", "learned", "none"});
  check_choice(kWhere, "norm_type", config.norm_type, {"layer", "rms"});
  HEADLOOM_CHECK(config.norm_eps > 0.0, kWhere, "norm_eps above 0",
                 cat("norm_eps = ", config.norm_eps));
  check_choice(kWhere, "activation", config.activation, {"relu", "gelu", "gated_gelu"});
  check_probability(kWhere, "dropout", config.dropout);
  check_probability(kWhere, "ffn_dropout", config.ffn_dropout);
  check_mixer("encoder_mixer", config.encoder_mixer, config.dim);
  check_mixer("decoder_mixer", config.decoder_mixer, config.dim);
  check_mixer("cross_mixer", config.cross_mixer, config.dim);
  HEADLOOM_CHECK(!config.share_embeddings || config.source_vocabulary == config.target_vocabulary,
                 kWhere, "equal vocabularies with share_embeddings",
                 cat("source_vocabulary = ", config.source_vocabulary,
                     ", target_vocabulary = ", config.target_vocabulary));
}

}  // namespace headloom::nn

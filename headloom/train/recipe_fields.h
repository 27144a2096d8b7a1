#pragma once

#include <limits>
#include <string>
#include <vector>

#include "headloom/train/recipe.h"

// Every key of a recipe, said once: the reader, the writer and the comparison of recipes walk the
// same list, so that none of them can forget a field.
namespace headloom::train {

// The values that a number may have. Never NaN or infinite.
struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_open = false, high_open = false;  // whether the bound itself is left out
};

inline constexpr double kUnbounded = std::numeric_limits<double>::infinity();
inline constexpr Range kPositive{0.0, kUnbounded, true, false};
inline constexpr Range kNotNegative{0.0, kUnbounded, false, false};
inline constexpr Range kOneOrMore{1.0, kUnbounded, false, false};
inline constexpr Range kShare{0.0, 1.0, false, false};
inline constexpr Range kShareBelowOne{0.0, 1.0, false, true};

// The section [alignment], with the calls of visit_fields().
template <class AnyConfig, class Visitor>
void visit_alignment(AnyConfig& a, Visitor& visitor) {
  visitor.section("alignment");
  visitor.choice(
      "form", a.form,
      {"none", "adversarial", "optimal_transport", "conditional_transport", "discrepancy"});
  visitor.number("weight", a.weight, Range{});
  visitor.choice("schedule", a.schedule, {"constant", "ramp"});
  visitor.number("ramp_steps", a.ramp_steps, kOneOrMore);
  visitor.choice("reduction", a.reduction, {"mean", "sum_heads"});
  visitor.flag("masks", a.masks);
  visitor.number("hidden", a.hidden, kOneOrMore);
  visitor.choice("activation", a.activation, {"relu", "leaky_relu", "tanh"});
  visitor.choice("highway", a.highway, {"paper", "shared"});
  visitor.number("reversal", a.reversal, kNotNegative);
  visitor.number("temperature", a.temperature, kPositive);
  visitor.flag("learn_temperature", a.learn_temperature);
  visitor.number("rho", a.rho, kShare);
  visitor.choice("cost", a.cost, {"cosine", "euclidean"});
  visitor.flag("unit_navigator", a.unit_navigator);
  visitor.flag("reverse_navigator", a.reverse_navigator);
  visitor.flag("detach_queries", a.detach_queries);
  visitor.number("eps", a.eps, kPositive);
  visitor.number("max_iter", a.max_iter, kOneOrMore);
  visitor.flag("debiased", a.debiased);
  visitor.choice("gradient", a.gradient, {"envelope", "implicit"});
  visitor.number("bandwidth", a.bandwidth, kPositive);
}

// Calls visitor.section(name), then one of
//   named(key, name, options)     the section's name and its free options
//   part(name, mixer)             a section that may be missing, with its name and free options
//   number(key, value, range)     int64_t, uint64_t or double
//   pair(key, first, second, range)
//   flag(key, value)
//   text(key, value)              any; empty when it is not there
//   choice(key, value, allowed)
//   compare(config)
// for each key, in the order in which a resolved recipe shows them. `AnyRecipe` is Recipe or const
// Recipe.
template <class AnyRecipe, class Visitor>
void visit_fields(AnyRecipe& r, Visitor& visitor) {
  visitor.section("task");
  visitor.named("task", r.task, r.task_options);

  visitor.section("model");
  visitor.number("dim", r.model.dim, kOneOrMore);
  visitor.number("layers", r.model.layers, kOneOrMore);
  visitor.number("heads", r.model.heads, kOneOrMore);
  visitor.number("ffn", r.model.ffn, kOneOrMore);
  visitor.choice("norm", r.model.norm, {"pre", "post"});
  visitor.choice("norm_type", r.model.norm_type, {"layer", "rms"});
  visitor.choice("positions", r.model.positions, {"learned", "sinusoidal", "none"});
  visitor.number("max_length", r.model.max_length, kOneOrMore);
  visitor.number("segments", r.model.segments, kNotNegative);
  visitor.flag("embedding_norm", r.model.embedding_norm);
  visitor.number("norm_eps", r.model.norm_eps, kPositive);
  visitor.choice("activation", r.model.activation, {"gelu", "relu", "gated_gelu"});
  visitor.number("dropout", r.model.dropout, kShareBelowOne);
  visitor.number("mixing_dropout", r.model.mixing_dropout, kShareBelowOne);
  visitor.number("ffn_dropout", r.parts.ffn_dropout, kShareBelowOne);
  visitor.number("decoder_layers", r.parts.decoder_layers, kNotNegative);
  visitor.text("initial", r.initial);

  visitor.section("mixer");
  visitor.named("mixer", r.model.mixer, r.model.mixer_options);
  visitor.part("encoder_mixer", r.parts.encoder_mixer);
  visitor.part("decoder_mixer", r.parts.decoder_mixer);
  visitor.part("cross_mixer", r.parts.cross_mixer);

  visit_alignment(r.alignment, visitor);

  visitor.section("optimizer");
  visitor.choice("name", r.optimizer.name, {"adamw", "adam"});
  visitor.number("lr", r.optimizer.lr, kPositive);
  visitor.pair("betas", r.optimizer.beta1, r.optimizer.beta2, kShareBelowOne);
  visitor.number("eps", r.optimizer.eps, kPositive);
  visitor.number("weight_decay", r.optimizer.weight_decay, kNotNegative);

  visitor.section("schedule");
  visitor.choice("name", r.schedule.name, {"constant", "linear", "cosine", "inverse_sqrt"});
  visitor.number("warmup", r.schedule.warmup, kNotNegative);
  visitor.number("steps", r.schedule.steps, kNotNegative);
  visitor.number("min_ratio", r.schedule.min_ratio, kShare);

  visitor.section("train");
  visitor.number("steps", r.train.steps, kOneOrMore);
  visitor.number("batch_size", r.train.batch_size, kOneOrMore);
  visitor.number("accumulate", r.train.accumulate, kOneOrMore);
  visitor.number("seed", r.train.seed, kNotNegative);
  visitor.number("clip", r.train.clip, kNotNegative);
  visitor.choice("precision", r.train.precision, {"float32", "bfloat16"});
  visitor.number("ema", r.train.ema, kShareBelowOne);
  visitor.number("log_every", r.train.log_every, kOneOrMore);
  visitor.number("validate_every", r.train.validate_every, kOneOrMore);
  visitor.number("checkpoint_every", r.train.checkpoint_every, kOneOrMore);
  visitor.number("keep", r.train.keep, kOneOrMore);
  visitor.number("patience", r.train.patience, kNotNegative);
  visitor.choice("device", r.train.device, {"cpu", "cuda"});
  visitor.number("threads", r.train.threads, kNotNegative);

  visitor.section("compare");
  visitor.compare(r.compare);
}

}  // namespace headloom::train

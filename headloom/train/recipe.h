#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "headloom/base/options.h"
#include "headloom/mechanisms/alignment/alignment_objective.h"
#include "headloom/nn/transformer.h"
#include "headloom/tasks/task.h"

namespace headloom::train {

struct OptimizerConfig {
  std::string name = "adamw";  // "adamw" (decoupled decay) or "adam" (decay in the gradient)
  double lr = 1e-3;
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  double weight_decay =
      0.0;  // matrices only: biases, norms and embeddings of one dimension are exempt
};

struct ScheduleConfig {
  std::string name = "constant";  // "constant", "linear", "cosine", "inverse_sqrt"
  int64_t warmup = 0;             // steps of linear warm-up from 0
  int64_t steps = 0;              // where linear and cosine end; 0 means the run's steps
  double min_ratio = 0.0;         // their last value as a share of lr
};

struct TrainConfig {
  int64_t steps = 1000;
  int64_t batch_size = 32;  // sequences a micro-batch
  int64_t accumulate = 1;   // micro-batches a step
  uint64_t seed = 1;
  double clip = 0.0;                  // global gradient norm; 0 does not clip
  std::string precision = "float32";  // or "bfloat16": autocast
  double ema = 0.0;                   // decay of averaged weights used for validation; 0 is off
  int64_t log_every = 10;
  int64_t validate_every = 100;    // and at the end
  int64_t checkpoint_every = 500;  // and at the end and on a signal
  int64_t keep = 2;                // newest checkpoints kept, besides the best
  int64_t patience = 0;            // validations without improvement before stopping; 0 never stops
  std::string device = "cpu";      // or "cuda"
  int64_t threads = 0;             // 0: torch's default
};

// What one row of a comparison changes: [compare.<name>].
struct CompareVariant {
  std::string mechanism;               // by default the section's own name
  Options options;                     // of the mechanism: the section's other keys
  std::vector<std::string> overrides;  // "set": "section.key=value", of any section but [compare]
  bool operator==(const CompareVariant&) const = default;
};

struct CompareConfig {
  // Each entry names a variant, or a mechanism with its default options.
  std::vector<std::string> mechanisms;
  std::map<std::string, CompareVariant> variants;
  std::vector<int64_t> seeds = {1};
};

// A run, as a TOML file states it: [task], [model], [mixer], [alignment], [optimizer], [schedule],
// [train], [compare]; encoder-decoder models also have [encoder_mixer], [decoder_mixer] and
// [cross_mixer].
struct Recipe {
  std::string path;  // of the file, for messages
  std::string task;
  Options task_options;
  nn::TransformerConfig model;  // [model], and [mixer] in model.mixer and model.mixer_options
  // What the first weights are those of, where names agree: a run, or a safetensors file. Relative
  // to base_folder; empty: nothing, weights are drawn.
  std::string initial;               // [model] initial
  tasks::EncoderDecoderParts parts;  // [encoder_mixer], ... and their keys of [model]
  AlignmentConfig alignment;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  TrainConfig train;
  CompareConfig compare;
  // Relative data paths start here: the folder of the recipe file, absolute. A resolved recipe
  // states it as a top-level key, so that it finds its data from wherever it lies.
  std::string base_folder;
  // Of the run that it belongs to, when there is one. Not written.
  std::string run_folder;
};

// Reads a recipe and applies overrides "section.key=value" in TOML syntax (a bare word is taken as
// a string). Unknown keys, wrong types and impossible values are all reported at once, one line
// each as file:line:column, with the nearest valid key.
Recipe load_recipe(const std::string& path, const std::vector<std::string>& overrides = {});

// The same from text; `path` is what messages call it and where relative paths start. `tasks` are
// the valid task names.
Recipe parse_recipe(const std::string& text, const std::string& path,
                    const std::vector<std::string>& overrides,
                    const std::vector<std::string>& tasks);

// The recipe of one row of the comparison: the variant's mechanism, options and overrides put into
// the shared recipe, and no [compare]. Options of a mechanism without a section are those of
// [mixer] when that names it, else the defaults. Error when `name` is neither.
Recipe variant_recipe(const Recipe& shared, const std::string& name);

// The recipe with every default filled in, as TOML that load_recipe() reads back to the same
// recipe.
std::string to_toml(const Recipe& recipe);

}  // namespace headloom::train

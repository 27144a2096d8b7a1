#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "headloom/train/recipe.h"

// Times one layer of each mechanism, its projections included, beside the layer that a user would
// write with torch. B batch, T tokens, C model width.
namespace headloom::cli {

struct LayerBenchPlan {
  int64_t batch = 1;             // B
  int64_t length = 1024;         // T
  bool causal = false;           // whether no token sees a later one
  std::string type = "float32";  // or "bfloat16"
  int64_t rounds = 11;           // each goes through all layers in turn
  double seconds = 1.0;          // of timing a layer and pass
  uint64_t seed = 1;             // of inputs and weights
};

// Medians over the rounds.
struct LayerTimes {
  double forward_ms = 0.0;  // without a graph for a backward pass
  double both_ms = 0.0;     // forward, and backward to the input and all parameters
};

struct LayerRow {
  std::string name;  // of the mechanism or variant; "torch" for the layer beside them
  int64_t parameters = 0;
  double flops = 0.0;  // of a forward pass over the batch
  LayerTimes times;
};

struct LayerBench {
  LayerBenchPlan plan;
  int64_t dim = 0, heads = 0;
  double peak_gflops = 0.0;  // multiply-adds of all threads in float32, measured before the layers
  std::vector<LayerRow> rows;  // the torch layer first, then as recipe.compare.mechanisms has them
};

// The last layer, of the recipe's width, heads and mixers, for each of recipe.compare.mechanisms.
// Weights and inputs are drawn from the seed; there is no dropout.
LayerBench run_layer_bench(const train::Recipe& recipe, const LayerBenchPlan& plan);

}  // namespace headloom::cli

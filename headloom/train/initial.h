#pragma once

#include <torch/nn/module.h>

#include <string>
#include <vector>

#include "headloom/train/recipe.h"
#include "headloom/train/safetensors.h"

// Weights of another run as the first ones of a model (fine-tuning).
namespace headloom::train {

// Beside a run: the weights of a pooler that its own model has no place for.
constexpr const char* kPoolerFile = "pooler.safetensors";

// Of a run folder: those of the best checkpoint, else the newest, with averaged weights where there
// are some, and those of kPoolerFile. Of a safetensors file: its own. Refuses anything else.
NamedTensors initial_weights(const std::string& path);

struct InitialReport {
  std::vector<std::string> loaded, fresh, unused;
  // One line: how many were loaded, and the names of the others.
  std::string text(const std::string& path) const;
};

// Copies weights into the parameters and buffers of the same names; sinusoidal positions may have
// been made for another max_length. Those of the model that have
// none stay as they are (a new head), and surplus ones are left out (an old head). Refuses, with
// all names, other shapes or dtypes, and weights of which nothing fits; nothing is copied then.
InitialReport load_initial(const std::string& path, torch::nn::Module& model);

// recipe.initial from the recipe's folder; empty when there is none.
std::string initial_path(const Recipe& recipe);

}  // namespace headloom::train

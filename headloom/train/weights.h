#pragma once

#include <torch/nn/module.h>

#include "headloom/train/safetensors.h"

namespace headloom::train {

// Parameters by name, each tensor once: of tied names the first.
NamedTensors unique_parameters(const torch::nn::Module& model);
int64_t count_parameters(const torch::nn::Module& model);  // scalars

// Parameters and buffers, detached and on the CPU.
NamedTensors model_tensors(const torch::nn::Module& model);

// The parameters and buffers themselves, each once.
NamedTensors model_entries(const torch::nn::Module& model);

// Copies tensors into targets of the same names. Refuses missing and surplus names and other shapes
// or dtypes, all of them in one message that starts with `where`; nothing is copied then.
void copy_strictly(const std::string& where, const NamedTensors& tensors,
                   const NamedTensors& targets);
void load_weights(const std::string& where, const NamedTensors& tensors, torch::nn::Module& model);

// The entries whose names start with `prefix`, without it; and the reverse.
NamedTensors with_prefix(const std::string& prefix, const NamedTensors& tensors);
NamedTensors under_prefix(const std::string& prefix, const NamedTensors& tensors);

}  // namespace headloom::train

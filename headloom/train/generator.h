#pragma once

#include <ATen/core/Tensor.h>

#include "headloom/train/safetensors.h"

namespace headloom::train {

// The state of torch's random generators of the CPU and of `device`, named "generator.<device>".
NamedTensors generator_state(at::Device device);
// Refuses a state that lacks one of them.
void restore_generators(const NamedTensors& state, at::Device device);

// Puts the generators back at the end of its life to where they were at its beginning.
class GeneratorGuard {
 public:
  explicit GeneratorGuard(at::Device device) : device_(device), state_(generator_state(device)) {}
  ~GeneratorGuard() { restore_generators(state_, device_); }
  GeneratorGuard(const GeneratorGuard&) = delete;
  GeneratorGuard& operator=(const GeneratorGuard&) = delete;

 private:
  at::Device device_;
  NamedTensors state_;
};

}  // namespace headloom::train

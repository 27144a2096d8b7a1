#pragma once

#include <string>
#include <vector>

#include "headloom/mechanisms/registry.h"
#include "tests/support/conformance.h"

// The suite for the mechanisms' modules, as Transformers use them. A slice states what its mixer
// is; join() registers the tests mixer_<id>.<check>.
namespace headloom::testing {

struct Mixer {
  std::string id;    // readable, e.g. light_conv_same
  std::string name;  // in the registry
  Options options = {};
  // Every parameter and buffer, as state_dict names them.
  std::vector<std::string> parameters;
  // Parameters whose gradient is zero by the maths, e.g. a bias added to all keys alike.
  std::vector<std::string> idle = {};
  int64_t dim = 12, heads = 3;
  bool causal = true, bidirectional = true;  // the forms it has
  bool cross = false;
  bool dropout = true;  // whether it drops weights in training
};

// Steps of any size equal the whole pass, in each row of the batch; the state counts and reports
// its bytes; other rows can continue after reorder().
Failures check_decoding(const Mixer& mixer);
// Padding at the end changes nothing for the other positions, also against the shorter sequence.
Failures check_mixer_padding(const Mixer& mixer);
// A packed batch equals one call a sequence.
Failures check_mixer_packing(const Mixer& mixer);
// Names, shapes that survive a copy into another mixer, gradients finite and not zero.
Failures check_parameters(const Mixer& mixer);
// Lengths 0 and 1, float32 and bfloat16, no stale memory, the same bits twice.
Failures check_forward(const Mixer& mixer);
// Acts in training alone, and torch's generator decides.
Failures check_mixer_dropout(const Mixer& mixer);
// No later token is seen.
Failures check_mixer_causality(const Mixer& mixer);
// Cross mixing in steps equals cross(), padding of the memory changes nothing, rows of a state can
// be chosen. For mixers with a cross form.
Failures check_mixer_cross(const Mixer& mixer);
// What it does not have is refused by name.
Failures check_mixer_refusals(const Mixer& mixer);

bool join(const Mixer& mixer);

// The registry's names that have joined so far.
const std::vector<std::string>& joined_mixers();

}  // namespace headloom::testing

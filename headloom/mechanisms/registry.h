#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "headloom/base/options.h"
#include "headloom/mechanisms/token_mixer.h"

namespace headloom {

// What a Transformer tells the mixer it builds.
struct MixerConfig {
  int64_t dim = 0;       // model width C
  int64_t heads = 0;     // divides dim
  bool causal = false;   // no token sees a later one
  double dropout = 0.0;  // on the mixing weights, in training
  int64_t layer = 0;     // 0-based, for mechanisms that differ by depth
  int64_t layers = 1;
};

using MixerFactory = std::function<std::shared_ptr<TokenMixer>(const MixerConfig&, OptionReader&)>;

struct Mechanism {
  std::string name;     // as recipes write it
  std::string summary;  // one line for `headloom list`
  std::string paper;
  std::string options;  // "key (default): meaning" lines
  MixerFactory make;
};

// A slice registers itself with a namespace-scope constant of this type.
struct RegisterMechanism {
  explicit RegisterMechanism(Mechanism mechanism);
};

// All mechanisms, by name.
std::vector<const Mechanism*> mechanisms();
// Refuses an unknown name and says which exist.
const Mechanism& find_mechanism(const std::string& name);

// Builds a mixer; refuses options that the mechanism does not know.
std::shared_ptr<TokenMixer> make_mixer(const std::string& name, const MixerConfig& config,
                                       const Options& options);

}  // namespace headloom

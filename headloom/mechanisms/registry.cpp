#include "headloom/mechanisms/registry.h"

#include <map>

#include "headloom/base/check.h"
#include "headloom/base/nearest.h"

namespace headloom {
namespace {

// Inside a function, so that it exists before the first slice registers itself.
std::map<std::string, Mechanism>& table() {
  static std::map<std::string, Mechanism> mechanisms;
  return mechanisms;
}

}  // namespace

RegisterMechanism::RegisterMechanism(Mechanism mechanism) {
  const std::string name = mechanism.name;
  const bool is_new = table().emplace(name, std::move(mechanism)).second;
  HEADLOOM_CHECK(is_new, "mechanism registry", "every name once", cat('"', name, "\" twice"));
}

std::vector<const Mechanism*> mechanisms() {
  std::vector<const Mechanism*> all;
  for (const auto& [name, mechanism] : table()) all.push_back(&mechanism);
  return all;
}

const Mechanism& find_mechanism(const std::string& name) {
  const auto found = table().find(name);
  if (found != table().end()) return found->second;
  std::vector<std::string> names;
  for (const auto& entry : table()) names.push_back(entry.first);
  const std::string nearest = nearest_name(name, names);
  fail("mixer", cat("a mechanism among ", join(names)), cat('"', name, '"'),
       nearest.empty() ? "" : cat("Did you mean \"", nearest, "\"?"));
}

std::shared_ptr<TokenMixer> make_mixer(const std::string& name, const MixerConfig& config,
                                       const Options& options) {
  const Mechanism& mechanism = find_mechanism(name);
  HEADLOOM_CHECK(config.dim > 0 && config.heads > 0 && config.dim % config.heads == 0,
                 cat("mixer ", name), "a width that is a multiple of the head count",
                 cat("width ", config.dim, ", heads ", config.heads));
  OptionReader reader(cat("mixer ", name), options);
  std::shared_ptr<TokenMixer> mixer = mechanism.make(config, reader);
  reader.done();
  mixer->mechanism = name;
  return mixer;
}

}  // namespace headloom

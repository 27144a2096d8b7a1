#include "headloom/train/recipe_changes.h"

#include <map>
#include <set>
#include <sstream>

#include "headloom/base/check.h"
#include "headloom/base/nearest.h"
#include "headloom/train/recipe.h"

namespace headloom::train {
namespace {

// to_toml() writes one "key = value" a line, under [section] lines.
std::map<std::string, std::string> flatten(const std::string& toml) {
  std::map<std::string, std::string> values;
  std::istringstream lines(toml);
  std::string section;
  for (std::string line; std::getline(lines, line);) {
    const size_t equals = line.find(" = ");
    if (!line.empty() && line.front() == '[') {
      section = line.substr(1, line.size() - 2) + '.';
    } else if (equals != std::string::npos) {
      values[section + line.substr(0, equals)] = line.substr(equals + 3);
    }
  }
  return values;
}

bool starts_with(const std::string& text, const std::string& prefix) {
  return text.rfind(prefix, 0) == 0;
}

bool breaks_resume(const std::string& key) {
  for (const char* section : {"task.", "model.", "mixer.", "encoder_mixer.", "decoder_mixer.",
                              "cross_mixer.", "alignment."}) {
    if (starts_with(key, section)) return true;
  }
  return key == "optimizer.name" || key == "train.ema" || key == "train.seed";
}

std::string show(const RecipeChange& change) {
  const std::string absent = "absent";
  return cat(change.key, ' ', change.before.empty() ? absent : change.before, " -> ",
             change.after.empty() ? absent : change.after);
}

}  // namespace

std::vector<RecipeChange> recipe_changes(const std::string& before, const std::string& after) {
  std::map<std::string, std::string> old_values = flatten(before), new_values = flatten(after);
  // A key that an earlier version did not have stands at its default.
  const std::map<std::string, std::string> defaults = flatten(to_toml(Recipe{}));
  old_values.insert(defaults.begin(), defaults.end());
  new_values.insert(defaults.begin(), defaults.end());
  std::set<std::string> keys;
  for (const auto& [key, value] : old_values) keys.insert(key);
  for (const auto& [key, value] : new_values) keys.insert(key);
  std::vector<RecipeChange> changes;
  for (const std::string& key : keys) {
    if (key == "base_folder" || starts_with(key, "compare.")) continue;
    if (old_values[key] == new_values[key]) continue;
    changes.push_back({key, old_values[key], new_values[key], breaks_resume(key)});
  }
  return changes;
}

std::vector<std::string> check_resume(const std::string& folder, const std::string& before,
                                      const std::string& after) {
  std::vector<std::string> breaking, allowed;
  for (const RecipeChange& change : recipe_changes(before, after)) {
    (change.breaks_resume ? breaking : allowed).push_back(show(change));
  }
  HEADLOOM_CHECK(breaking.empty(), folder, "the recipe that this run was started with",
                 join(breaking, "; "), "Choose another folder for another run.");
  return allowed;
}

}  // namespace headloom::train

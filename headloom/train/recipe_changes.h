#pragma once

#include <string>
#include <vector>

namespace headloom::train {

struct RecipeChange {
  std::string key;            // dotted
  std::string before, after;  // as TOML; empty when absent
  bool breaks_resume = false;
};

// How two resolved recipes differ, apart from [compare] and base_folder, which no run depends on. A
// change breaks a run that goes on when the checkpoint's tensors or data would no longer fit: the
// task, the model, the mixer, the kind of optimizer, averaging and the seed.
std::vector<RecipeChange> recipe_changes(const std::string& before, const std::string& after);

// Refuses to go on in `folder` when a change breaks it; otherwise says each change.
std::vector<std::string> check_resume(const std::string& folder, const std::string& before,
                                      const std::string& after);

}  // namespace headloom::train

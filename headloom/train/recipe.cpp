#include "headloom/train/recipe.h"

#include <filesystem>

#include "headloom/base/check.h"
#include "headloom/mechanisms/registry.h"
#include "headloom/tasks/task.h"
#include "headloom/train/files.h"
#include "headloom/train/recipe_reader.h"

namespace headloom::train {
namespace {

// No recipe is near this; a data file given by mistake is refused before it is read.
constexpr uint64_t kMaxBytes = 1 << 20;

toml::table parse(const std::string& text, const std::string& path) {
  try {
    return toml::parse(text, path);
  } catch (const toml::parse_error& error) {
    const auto& place = error.source().begin;
    fail(cat(path, ':', place.line, ':', place.column), "a recipe in TOML syntax",
         std::string(error.description()));
  }
}

std::string absolute_folder(const std::filesystem::path& path) {
  const std::filesystem::path folder = std::filesystem::absolute(path).lexically_normal();
  return (folder.has_filename() ? folder : folder.parent_path()).string();
}

std::string read_base_folder(const toml::table& root, const std::string& path, Problems& problems) {
  const std::filesystem::path here = std::filesystem::path(path).parent_path();
  const toml::node* node = root.get("base_folder");
  if (!node) return absolute_folder(here.empty() ? "." : here);
  const auto* text = node->as_string();
  if (!text || text->get().empty()) {
    problems.add("base_folder", node->source(), "base_folder to be a folder", describe(*node));
    return {};
  }
  return absolute_folder(here / text->get());
}

}  // namespace

Recipe parse_recipe(const std::string& text, const std::string& path,
                    const std::vector<std::string>& overrides,
                    const std::vector<std::string>& tasks) {
  toml::table root = parse(text, path);
  Problems problems(path);
  apply_overrides(root, overrides, problems);

  Recipe recipe;
  recipe.path = path;
  recipe.base_folder = read_base_folder(root, path, problems);
  RecipeReader reader(root, tasks, problems);
  visit_fields(recipe, reader);
  reader.finish();
  if (recipe.model.dim % recipe.model.heads != 0) {
    problems.add("model.heads", reader.place("model", "heads"), "model.heads to divide model.dim",
                 cat("dim = ", recipe.model.dim, ", heads = ", recipe.model.heads));
  }
  if (recipe.compare.seeds.empty()) {
    problems.add("compare.seeds", reader.place("compare", "seeds"),
                 "compare.seeds with one seed at least", "none");
  }
  problems.raise();
  return recipe;
}

Recipe load_recipe(const std::string& path, const std::vector<std::string>& overrides) {
  HEADLOOM_CHECK(std::filesystem::exists(path), path, "a recipe file", "no such file");
  HEADLOOM_CHECK(!is_folder(path), path, "a recipe file", "a folder");
  const std::string text = read_text(path, kMaxBytes);
  return parse_recipe(text, path, overrides, tasks::task_names());
}

Recipe variant_recipe(const Recipe& shared, const std::string& name) {
  const auto entry = shared.compare.variants.find(name);
  CompareVariant variant{name, {}, {}};
  if (entry != shared.compare.variants.end()) {
    variant = entry->second;
  } else if (name == shared.model.mixer) {
    variant.options = shared.model.mixer_options;
  }
  find_mechanism(variant.mechanism);
  // Overrides are words of a recipe; the text of the shared one takes them as a file would.
  Recipe recipe = shared;
  if (!variant.overrides.empty()) {
    recipe = parse_recipe(to_toml(shared), shared.path, variant.overrides, tasks::task_names());
  }
  recipe.model.mixer = variant.mechanism;
  recipe.model.mixer_options = variant.options;
  recipe.compare = {};
  return recipe;
}

}  // namespace headloom::train

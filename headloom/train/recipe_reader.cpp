#include "headloom/train/recipe_reader.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "headloom/base/check.h"
#include "headloom/base/nearest.h"
#include "headloom/mechanisms/registry.h"
#include "headloom/train/recipe_text.h"

namespace headloom::train {
namespace {

std::vector<std::string> mechanism_names() {
  std::vector<std::string> names;
  for (const Mechanism* mechanism : mechanisms()) names.push_back(mechanism->name);
  return names;
}

bool contains(const Range& range, double value) {
  if (!std::isfinite(value)) return false;
  const bool above = range.low_open ? value > range.low : value >= range.low;
  const bool below = range.high_open ? value < range.high : value <= range.high;
  return above && below;
}

std::string describe(const Range& range) {
  std::string text;
  if (std::isfinite(range.low)) text += cat(range.low_open ? " above " : " at least ", range.low);
  if (std::isfinite(range.high)) {
    text += cat(text.empty() ? "" : " and", range.high_open ? " below " : " at most ", range.high);
  }
  return text;
}

bool has(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

toml::source_region RecipeReader::place(const std::string& section, const std::string& key) const {
  const toml::node* table = root_.get(section);
  if (!table) return {};
  const toml::node* node = table->is_table() ? table->as_table()->get(key) : nullptr;
  return node ? node->source() : table->source();
}

void RecipeReader::report(const std::string& key, const toml::node& node,
                          const std::string& expected, const std::string& advice) {
  problems_.add(key, node.source(), expected, train::describe(node), advice);
}

void RecipeReader::section(const std::string& name) {
  close_section();
  sections_.push_back(name);
  section_ = name;
  keys_.clear();
  open_ = false;
  table_ = nullptr;
  if (const toml::node* node = root_.get(name)) {
    table_ = node->as_table();
    if (!table_) report(name, *node, cat('[', name, "] to be a table"));
  }
}

void RecipeReader::close_section() {
  if (!table_ || open_) return;
  for (const auto& [key, node] : *table_) {
    const std::string name(key.str());
    if (has(keys_, name)) continue;
    problems_.add(section_ + '.' + name, key.source(),
                  cat("keys of [", section_, "] among ", join(keys_)), toml_string(name),
                  did_you_mean(name, keys_));
  }
}

void RecipeReader::finish() {
  close_section();
  for (const auto& [key, node] : root_) {
    const std::string name(key.str());
    if (has(sections_, name)) continue;
    const std::vector<std::string> shown(sections_.begin() + 1, sections_.end());
    problems_.add(
        name, node.is_table() ? node.source() : key.source(), cat("sections among ", join(shown)),
        node.is_table() ? cat('[', name, ']') : toml_string(name), did_you_mean(name, sections_));
  }
}

const toml::node* RecipeReader::find(const std::string& key) {
  keys_.push_back(key);
  return table_ ? table_->get(key) : nullptr;
}

bool RecipeReader::whole(const std::string& key, const toml::node& node, int64_t& value,
                         const Range& range) {
  const auto* found = node.as_integer();
  if (found && contains(range, static_cast<double>(found->get()))) {
    value = found->get();
    return true;
  }
  report(key, node, cat(key, " to be a whole number", describe(range)));
  return false;
}

bool RecipeReader::real(const std::string& key, const toml::node& node, double& value,
                        const Range& range) {
  if (node.is_number()) {
    const double found = *node.value<double>();
    if (contains(range, found)) {
      value = found;
      return true;
    }
  }
  report(key, node, cat(key, " to be a number", describe(range)));
  return false;
}

bool RecipeReader::one_of(const std::string& key, const toml::node& node, std::string& value,
                          const std::string& kind, const std::vector<std::string>& allowed) {
  const auto* found = node.as_string();
  if (found && has(allowed, found->get())) {
    value = found->get();
    return true;
  }
  report(key, node, cat(key, " to be ", kind, " among ", join(allowed)),
         found ? did_you_mean(found->get(), allowed) : "");
  return false;
}

void RecipeReader::number(const char* key, int64_t& value, const Range& range) {
  if (const toml::node* node = find(key)) whole(section_ + '.' + key, *node, value, range);
}

void RecipeReader::number(const char* key, uint64_t& value, const Range& range) {
  auto signed_value = static_cast<int64_t>(value);
  number(key, signed_value, range);
  value = static_cast<uint64_t>(signed_value);
}

void RecipeReader::number(const char* key, double& value, const Range& range) {
  if (const toml::node* node = find(key)) real(section_ + '.' + key, *node, value, range);
}

void RecipeReader::pair(const char* key, double& first, double& second, const Range& range) {
  const toml::node* node = find(key);
  if (!node) return;
  const std::string path = section_ + '.' + key;
  const toml::array* values = node->as_array();
  if (!values || values->size() != 2) {
    return report(path, *node, cat(path, " to be a list of two numbers"));
  }
  real(path, (*values)[0], first, range);
  real(path, (*values)[1], second, range);
}

void RecipeReader::flag(const char* key, bool& value) {
  const toml::node* node = find(key);
  if (!node) return;
  if (const auto* found = node->as_boolean()) {
    value = found->get();
  } else {
    const std::string path = section_ + '.' + key;
    report(path, *node, cat(path, " to be true or false"));
  }
}

void RecipeReader::text(const char* key, std::string& value) {
  const toml::node* node = find(key);
  if (!node) return;
  if (const auto* found = node->as_string()) {
    value = found->get();
  } else {
    report(section_ + '.' + key, *node, cat(section_, '.', key, " to be a text"));
  }
}

void RecipeReader::choice(const char* key, std::string& value,
                          const std::vector<std::string>& allowed) {
  if (const toml::node* node = find(key)) {
    one_of(section_ + '.' + key, *node, value, "one", allowed);
  }
}

void RecipeReader::named(const char* kind, std::string& name, Options& options) {
  const bool is_task = section_ == "task";
  const std::vector<std::string> names = is_task ? tasks_ : mechanism_names();
  open_ = true;
  if (const toml::node* node = find("name")) {
    one_of(section_ + ".name", *node, name, is_task ? "a task" : "a mechanism", names);
  } else if (name.empty()) {
    problems_.add(section_ + ".name", place(section_, ""),
                  cat("[", kind, "] with name = one of ", join(names)),
                  root_.empty() ? "an empty recipe" : "none");
  }
  if (table_) this->options(section_, *table_, {"name"}, options);
}

void RecipeReader::part(const char* name, tasks::NamedMixer& mixer) {
  section(name);
  if (root_.get(name)) named(name, mixer.name, mixer.options);
}

void RecipeReader::options(const std::string& path, const toml::table& table,
                           const std::vector<std::string>& skip, Options& options) {
  for (const auto& [key, node] : table) {
    const std::string name(key.str());
    if (has(skip, name)) continue;
    const toml::array* list = node.as_array();
    if (const auto* value = node.as_boolean()) {
      options[name] = value->get();
    } else if (const auto* integer = node.as_integer()) {
      options[name] = integer->get();
    } else if (const auto* floating = node.as_floating_point()) {
      options[name] = floating->get();
    } else if (const auto* text = node.as_string()) {
      options[name] = text->get();
    } else if (list && (list->empty() || list->is_homogeneous<int64_t>())) {
      std::vector<int64_t> values;
      for (const toml::node& item : *list) values.push_back(*item.value<int64_t>());
      options[name] = values;
    } else {
      report(path + '.' + name, node,
             cat(path, '.', name, " to be true, false, a number, a string or whole numbers"));
    }
  }
}

template <class T, class Read>
void RecipeReader::list(const std::string& key, std::vector<T>& values, const std::string& kind,
                        const Read& read) {
  const toml::node* node = find(key);
  if (!node) return;
  const std::string path = section_ + '.' + key;
  const toml::array* array = node->as_array();
  if (!array) return report(path, *node, cat(path, " to be a list of ", kind));
  std::set<T> seen;
  values.clear();
  for (const toml::node& item : *array) {
    T value{};
    if (!read(path, item, value)) continue;
    if (!seen.insert(value).second) report(path, item, cat(path, " without repetitions"));
    values.push_back(value);
  }
}

void RecipeReader::variant(const std::string& name, const toml::table& table,
                           CompareVariant& variant) {
  const std::string path = "compare." + name;
  const std::vector<std::string> names = mechanism_names();
  variant.mechanism = name;
  if (const toml::node* node = table.get("mechanism")) {
    one_of(path + ".mechanism", *node, variant.mechanism, "a mechanism", names);
  } else if (!has(names, name)) {
    problems_.add(path, table.source(),
                  cat("[compare.<name>] with mechanism = one of ", join(names),
                      ", or named after one of them"),
                  cat('[', path, ']'), did_you_mean(name, names));
  }
  if (const toml::node* node = table.get("set")) {
    const toml::array* array = node->as_array();
    if (!array || !(array->empty() || array->is_homogeneous<std::string>())) {
      report(path + ".set", *node, cat(path, ".set to be a list of texts \"section.key=value\""));
    } else {
      for (const toml::node& item : *array) {
        variant.overrides.push_back(item.as_string()->get());
      }
    }
  }
  options(path, table, {"mechanism", "set"}, variant.options);
}

void RecipeReader::compare(CompareConfig& config) {
  std::vector<std::string> names = mechanism_names(), sections;
  if (table_) {
    for (const auto& [key, node] : *table_) {
      const toml::table* table = node.as_table();
      const std::string name(key.str());
      if (!table || name == "mechanisms" || name == "seeds") continue;
      variant(name, *table, config.variants[name]);
      sections.push_back(name);
      if (!has(names, name)) names.push_back(name);
    }
  }
  list("mechanisms", config.mechanisms, "mechanism names",
       [&](const std::string& path, const toml::node& node, std::string& value) {
         return one_of(path, node, value, "mechanisms or variants", names);
       });
  list("seeds", config.seeds, "whole numbers",
       [&](const std::string& path, const toml::node& node, int64_t& value) {
         return whole(path, node, value, kNotNegative);
       });
  keys_.insert(keys_.end(), sections.begin(), sections.end());
}

}  // namespace headloom::train

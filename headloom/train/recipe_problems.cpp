#include "headloom/train/recipe_problems.h"

#include <algorithm>

#include "headloom/base/check.h"
#include "headloom/base/nearest.h"
#include "headloom/train/recipe_text.h"

namespace headloom::train {
namespace {

constexpr size_t kShownBytes = 80;

std::string sentence(const std::string& where, const std::string& expected,
                     const std::string& found, const std::string& advice) {
  return cat(where, ": expected ", expected, "; found ", found, '.', advice.empty() ? "" : " ",
             advice);
}

}  // namespace

const std::string* Problems::origin(std::string key) const {
  for (;;) {
    const auto found = origins_.find(key);
    if (found != origins_.end()) return &found->second;
    const size_t dot = key.rfind('.');
    if (dot == std::string::npos) return nullptr;
    key.resize(dot);
  }
}

void Problems::add(const std::string& key, const toml::source_region& where,
                   const std::string& expected, const std::string& found,
                   const std::string& advice) {
  if (const std::string* text = origin(key)) return add_override(*text, expected, found, advice);
  const uint32_t line = std::max<uint32_t>(where.begin.line, 1);
  const uint32_t column = std::max<uint32_t>(where.begin.column, 1);
  lines_.emplace_back(false, line, column,
                      sentence(cat(path_, ':', line, ':', column), expected, found, advice));
}

void Problems::add_override(const std::string& override_text, const std::string& expected,
                            const std::string& found, const std::string& advice) {
  const auto place = static_cast<uint32_t>(lines_.size());
  lines_.emplace_back(true, place, 0, sentence("--set " + override_text, expected, found, advice));
}

void Problems::raise() const {
  if (lines_.empty()) return;
  auto sorted = lines_;
  std::sort(sorted.begin(), sorted.end());
  std::vector<std::string> texts;
  for (const auto& line : sorted) texts.push_back(std::get<3>(line));
  throw Error(join(texts, "\n"));
}

std::string did_you_mean(const std::string& word, const std::vector<std::string>& candidates) {
  const std::string nearest = nearest_name(word, candidates);
  return nearest.empty() ? "" : cat("Did you mean \"", nearest, "\"?");
}

std::string describe(const toml::node& node) {
  if (const auto* text = node.as_string()) {
    const std::string& value = text->get();
    return value.size() <= kShownBytes ? toml_string(value)
                                       : cat("a string of ", value.size(), " bytes");
  }
  if (const auto* value = node.as_integer()) return std::to_string(value->get());
  if (const auto* value = node.as_floating_point()) return toml_number(value->get());
  if (const auto* value = node.as_boolean()) return value->get() ? "true" : "false";
  if (const auto* list = node.as_array()) {
    std::vector<std::string> words;
    for (const toml::node& item : *list) words.push_back(describe(item));
    const std::string text = '[' + join(words) + ']';
    return text.size() <= kShownBytes ? text : cat("a list of ", words.size());
  }
  return node.is_table() ? "a table" : "a date or time";
}

}  // namespace headloom::train

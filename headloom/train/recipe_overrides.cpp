#include <algorithm>

#include "headloom/train/recipe_problems.h"

namespace headloom::train {
namespace {

std::string trim(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts(1);
  for (char c : text) {
    if (c == separator) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

// A table with the value under "value"; without it when the text is no value.
toml::table parse_value(const std::string& text) {
  try {
    toml::table parsed = toml::parse("value = " + text);
    if (parsed.size() == 1) return parsed;
  } catch (const toml::parse_error&) {
  }
  const bool bare = !text.empty() && std::string("\"'[{").find(text[0]) == std::string::npos &&
                    text.find('\n') == std::string::npos;
  return bare ? toml::table{{"value", text}} : toml::table{};
}

void apply_override(toml::table& root, const std::string& override_text, Problems& problems) {
  const size_t equals = override_text.find('=');
  const std::string key = trim(override_text.substr(0, equals));
  const std::vector<std::string> parts = split(key, '.');
  const bool whole_key = std::find(parts.begin(), parts.end(), "") == parts.end();
  if (equals == std::string::npos || !whole_key) {
    problems.add_override(override_text, "section.key=value", override_text);
    return;
  }
  const std::string text = trim(override_text.substr(equals + 1));
  toml::table parsed = parse_value(text);
  toml::node* value = parsed.get("value");
  if (!value) {
    problems.add_override(override_text, "a value in TOML syntax, or a bare word",
                          text.empty() ? "nothing" : text);
    return;
  }
  toml::table* table = &root;
  std::string path;
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    path += (i ? "." : "") + parts[i];
    toml::node* next = table->get(parts[i]);
    if (!next) {
      table->insert(parts[i], toml::table{});
      next = table->get(parts[i]);
      problems.set_origin(path, override_text);
    }
    if (!next->is_table()) {
      problems.add_override(override_text, path + " to be a table", describe(*next));
      return;
    }
    table = next->as_table();
  }
  table->insert_or_assign(parts.back(), *value);
  problems.set_origin(key, override_text);
}

}  // namespace

void apply_overrides(toml::table& root, const std::vector<std::string>& overrides,
                     Problems& problems) {
  for (const std::string& text : overrides) apply_override(root, text, problems);
}

}  // namespace headloom::train

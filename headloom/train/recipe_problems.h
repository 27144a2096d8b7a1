#pragma once

#include <toml++/toml.h>

#include <map>
#include <string>
#include <tuple>
#include <vector>

namespace headloom::train {

// What is wrong with a recipe, collected so that a user sees all of it at once.
class Problems {
 public:
  explicit Problems(std::string path) : path_(std::move(path)) {}

  // Values under `key` (dotted) come from this override and have no place in the file.
  void set_origin(const std::string& key, const std::string& override_text) {
    origins_[key] = override_text;
  }

  // `key` is the dotted name of what is wrong, `where` its place in the file.
  void add(const std::string& key, const toml::source_region& where, const std::string& expected,
           const std::string& found, const std::string& advice = {});
  // An override that cannot even be read.
  void add_override(const std::string& override_text, const std::string& expected,
                    const std::string& found, const std::string& advice = {});

  // Error with one line for each problem, in file order and overrides last; nothing without any.
  void raise() const;

 private:
  const std::string* origin(std::string key) const;

  std::string path_;
  std::map<std::string, std::string> origins_;
  std::vector<std::tuple<bool, uint32_t, uint32_t, std::string>> lines_;  // sorts by place
};

// `Did you mean "x"?` or nothing.
std::string did_you_mean(const std::string& word, const std::vector<std::string>& candidates);
// A value as an error message shows it.
std::string describe(const toml::node& node);

// Puts overrides "a.b=value" into the tree.
void apply_overrides(toml::table& root, const std::vector<std::string>& overrides,
                     Problems& problems);

}  // namespace headloom::train

#pragma once

#include "headloom/train/recipe.h"
#include "headloom/train/recipe_fields.h"
#include "headloom/train/recipe_problems.h"

namespace headloom::train {

// A visitor (recipe_fields.h) that fills a recipe from TOML and collects what is wrong with it.
class RecipeReader {
 public:
  RecipeReader(const toml::table& root, std::vector<std::string> tasks, Problems& problems)
      : root_(root), tasks_(std::move(tasks)), problems_(problems) {}

  void section(const std::string& name);
  void named(const char* key, std::string& name, Options& options);
  void part(const char* name, tasks::NamedMixer& mixer);
  void number(const char* key, int64_t& value, const Range& range);
  void number(const char* key, uint64_t& value, const Range& range);
  void number(const char* key, double& value, const Range& range);
  void pair(const char* key, double& first, double& second, const Range& range);
  void flag(const char* key, bool& value);
  void text(const char* key, std::string& value);
  void choice(const char* key, std::string& value, const std::vector<std::string>& allowed);
  void compare(CompareConfig& config);

  // Reports what nothing has read. After the last field.
  void finish();
  // Where a key stands, for checks that involve several.
  toml::source_region place(const std::string& section, const std::string& key) const;

 private:
  const toml::node* find(const std::string& key);  // in the current section; remembers the key
  void close_section();
  void report(const std::string& key, const toml::node& node, const std::string& expected,
              const std::string& advice = {});
  bool real(const std::string& key, const toml::node& node, double& value, const Range& range);
  bool whole(const std::string& key, const toml::node& node, int64_t& value, const Range& range);
  bool one_of(const std::string& key, const toml::node& node, std::string& value,
              const std::string& kind, const std::vector<std::string>& allowed);
  void options(const std::string& path, const toml::table& table,
               const std::vector<std::string>& skip, Options& options);
  void variant(const std::string& name, const toml::table& table, CompareVariant& variant);
  template <class T, class Read>
  void list(const std::string& key, std::vector<T>& values, const std::string& kind,
            const Read& read);

  const toml::table& root_;
  std::vector<std::string> tasks_;
  Problems& problems_;
  std::vector<std::string> sections_ = {"base_folder"};
  std::string section_;
  const toml::table* table_ = nullptr;  // the current section, null when absent
  std::vector<std::string> keys_;       // that the current section may have
  bool open_ = false;                   // the current section takes any key
};

}  // namespace headloom::train

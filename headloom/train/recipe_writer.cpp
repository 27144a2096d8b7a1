#include <limits>
#include <sstream>

#include "headloom/base/check.h"
#include "headloom/base/nearest.h"
#include "headloom/train/recipe.h"
#include "headloom/train/recipe_fields.h"
#include "headloom/train/recipe_text.h"

namespace headloom::train {
namespace {

class Writer {
 public:
  void top_level(const std::string& key, const std::string& value) {
    text_ << key << " = " << toml_string(value) << '\n';
  }
  void section(const std::string& name) {
    if (text_.tellp() > 0) text_ << '\n';
    text_ << '[' << name << "]\n";
  }
  void named(const char*, const std::string& name, const Options& options) {
    line("name", toml_string(name));
    write(options);
  }
  void part(const char* key, const tasks::NamedMixer& mixer) {
    if (mixer.name.empty()) return;
    section(key);
    named(key, mixer.name, mixer.options);
  }
  void number(const char* key, int64_t value, const Range&) { line(key, std::to_string(value)); }
  void number(const char* key, uint64_t value, const Range&) {
    HEADLOOM_CHECK(value <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()), "recipe",
                   cat(key, " below 2^63, the largest whole number of TOML"), cat(value));
    line(key, std::to_string(value));
  }
  void number(const char* key, double value, const Range&) { line(key, toml_number(value)); }
  void pair(const char* key, double first, double second, const Range&) {
    line(key, cat('[', toml_number(first), ", ", toml_number(second), ']'));
  }
  void flag(const char* key, bool value) { line(key, value ? "true" : "false"); }
  void text(const char* key, const std::string& value) {
    if (!value.empty()) line(key, toml_string(value));
  }
  void choice(const char* key, const std::string& value, const std::vector<std::string>&) {
    line(key, toml_string(value));
  }
  void compare(const CompareConfig& config) {
    std::vector<std::string> names;
    for (const std::string& name : config.mechanisms) names.push_back(toml_string(name));
    line("mechanisms", cat('[', join(names), ']'));
    line("seeds", toml_value(OptionValue(config.seeds)));
    for (const auto& [name, variant] : config.variants) {
      section("compare." + toml_key(name));
      if (variant.mechanism != name) line("mechanism", toml_string(variant.mechanism));
      std::vector<std::string> overrides;
      for (const std::string& text : variant.overrides) overrides.push_back(toml_string(text));
      if (!overrides.empty()) line("set", cat('[', join(overrides), ']'));
      write(variant.options);
    }
  }
  std::string text() const { return text_.str(); }

 private:
  void line(const std::string& key, const std::string& value) {
    text_ << key << " = " << value << '\n';
  }
  void write(const Options& options) {
    for (const auto& [key, value] : options) line(toml_key(key), toml_value(value));
  }

  std::ostringstream text_;
};

}  // namespace

std::string to_toml(const Recipe& recipe) {
  Writer writer;
  if (!recipe.base_folder.empty()) writer.top_level("base_folder", recipe.base_folder);
  visit_fields(recipe, writer);
  return writer.text();
}

}  // namespace headloom::train

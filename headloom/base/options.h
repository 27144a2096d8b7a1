#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace headloom {

// Named options of a mechanism or task as a recipe states them.
using OptionValue = std::variant<bool, int64_t, double, std::string, std::vector<int64_t>>;
using Options = std::map<std::string, OptionValue>;

// The value as a recipe would write it: true, 3, 0.5, "same", [3, 7].
std::string to_string(const OptionValue& value);

// Reads options with defaults and remembers which were asked for, so that done() can refuse the
// rest. Messages start with `where`, e.g. "mixer light_conv".
class OptionReader {
 public:
  OptionReader(std::string where, const Options& options)
      : where_(std::move(where)), options_(options) {}

  bool boolean(const std::string& key, bool fallback);
  int64_t integer(const std::string& key, int64_t fallback);
  double number(const std::string& key, double fallback);  // an integer is accepted
  std::string text(const std::string& key, const std::string& fallback);
  // `allowed` are the valid values; anything else is an error that names the nearest.
  std::string choice(const std::string& key, const std::string& fallback,
                     const std::vector<std::string>& allowed);
  // A single integer is accepted as a list of one.
  std::vector<int64_t> integers(const std::string& key, const std::vector<int64_t>& fallback);

  // Refuses options that nothing has asked for, naming the nearest valid key.
  void done() const;

 private:
  template <class T>
  T get(const std::string& key, const T& fallback, const char* type);

  std::string where_;
  const Options& options_;
  std::set<std::string> asked_;
};

}  // namespace headloom

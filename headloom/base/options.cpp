#include "headloom/base/options.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "headloom/base/check.h"
#include "headloom/base/nearest.h"

namespace headloom {
namespace {

struct Printer {
  std::string operator()(bool value) const { return value ? "true" : "false"; }
  std::string operator()(int64_t value) const { return std::to_string(value); }
  // The shortest text that reads back as this double, and as a double.
  std::string operator()(double value) const {
    std::array<char, 32> buffer;
    const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value).ptr;
    const std::string text(buffer.data(), end);
    return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
  }
  std::string operator()(const std::string& value) const { return '"' + value + '"'; }
  std::string operator()(const std::vector<int64_t>& values) const {
    std::vector<std::string> words;
    for (int64_t value : values) words.push_back(std::to_string(value));
    return '[' + join(words) + ']';
  }
};

}  // namespace

std::string to_string(const OptionValue& value) {
  return std::visit(Printer{}, value);
}

template <class T>
T OptionReader::get(const std::string& key, const T& fallback, const char* type) {
  asked_.insert(key);
  const auto found = options_.find(key);
  if (found == options_.end()) return fallback;
  const T* value = std::get_if<T>(&found->second);
  HEADLOOM_CHECK(value, where_, cat(key, " to be ", type), to_string(found->second));
  return *value;
}

bool OptionReader::boolean(const std::string& key, bool fallback) {
  return get<bool>(key, fallback, "true or false");
}

int64_t OptionReader::integer(const std::string& key, int64_t fallback) {
  return get<int64_t>(key, fallback, "a whole number");
}

double OptionReader::number(const std::string& key, double fallback) {
  const auto found = options_.find(key);
  if (found != options_.end() && std::holds_alternative<int64_t>(found->second)) {
    asked_.insert(key);
    return static_cast<double>(std::get<int64_t>(found->second));
  }
  return get<double>(key, fallback, "a number");
}

std::string OptionReader::text(const std::string& key, const std::string& fallback) {
  return get<std::string>(key, fallback, "a string");
}

std::string OptionReader::choice(const std::string& key, const std::string& fallback,
                                 const std::vector<std::string>& allowed) {
  const std::string value = text(key, fallback);
  if (std::find(allowed.begin(), allowed.end(), value) == allowed.end()) {
    const std::string nearest = nearest_name(value, allowed);
    fail(where_, cat(key, " to be one of ", join(allowed)), cat('"', value, '"'),
         nearest.empty() ? "" : cat("Did you mean \"", nearest, "\"?"));
  }
  return value;
}

std::vector<int64_t> OptionReader::integers(const std::string& key,
                                            const std::vector<int64_t>& fallback) {
  const auto found = options_.find(key);
  if (found != options_.end() && std::holds_alternative<int64_t>(found->second)) {
    asked_.insert(key);
    return {std::get<int64_t>(found->second)};
  }
  return get<std::vector<int64_t>>(key, fallback, "a list of whole numbers");
}

void OptionReader::done() const {
  const std::vector<std::string> valid(asked_.begin(), asked_.end());
  for (const auto& [key, value] : options_) {
    if (asked_.count(key)) continue;
    const std::string nearest = nearest_name(key, valid);
    fail(where_, valid.empty() ? "no options" : cat("options among ", join(valid)),
         cat(key, " = ", to_string(value)),
         nearest.empty() ? "" : cat("Did you mean \"", nearest, "\"?"));
  }
}

}  // namespace headloom

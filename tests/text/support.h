#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "headloom/base/check.h"
#include "tests/support/message_of.h"

namespace headloom::text {

// What the tokenizers package and sacreBLEU say: tests/golden/text.json.
inline const nlohmann::json& golden() {
  static const nlohmann::json read = [] {
    std::ifstream file(HEADLOOM_SOURCE_DIR "/tests/golden/text.json");
    return nlohmann::json::parse(file);
  }();
  return read;
}

inline std::vector<std::string> golden_lines(const char* key) {
  return golden().at(key).get<std::vector<std::string>>();
}

using headloom::testing::message_of;

// A tokenizer.json with a BPE model of the letters a to c; `change` edits it first.
template <class Change>
std::string small_file(const Change& change) {
  nlohmann::json file = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", nlohmann::json::array()},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "WhitespaceSplit"}}},
      {"post_processor", nullptr},
      {"decoder", nullptr},
      {"model",
       {{"type", "BPE"},
        {"vocab", {{"a", 0}, {"b", 1}, {"c", 2}, {"ab", 3}, {"abc", 4}, {"bc", 5}, {"?", 6}}},
        {"merges", {"a b", "ab c", "b c"}}}}};
  change(file);
  return file.dump();
}

inline std::string small_file() {
  return small_file([](nlohmann::json&) {});
}

}  // namespace headloom::text

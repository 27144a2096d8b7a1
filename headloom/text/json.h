#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

// Reading the parts of a tokenizer.json with messages that name the part.
namespace headloom::text {

using Json = nlohmann::json;

// The value below a key; refuses a missing key and another type than T (bool, std::string, int64_t,
// double, or Json for any). `where` is the part, "tokenizer.json: model".
template <class T>
T need(const Json& object, const char* key, const std::string& where);

// The same, with a value for a key that is missing or null.
template <class T>
T optional_value(const Json& object, const char* key, const T& fallback, const std::string& where);

// The "type" of a part; refuses one that is not among `known`, naming the nearest.
std::string part_type(const Json& part, const std::vector<std::string>& known,
                      const std::string& where);

// The whole text as an object, or an Error with line and column.
Json parse_json(std::string_view text, const std::string& where);

}  // namespace headloom::text

#include "headloom/text/json.h"

#include "headloom/base/check.h"
#include "headloom/base/nearest.h"

namespace headloom::text {
namespace {

template <class T>
bool holds(const Json& value);
template <>
bool holds<bool>(const Json& value) {
  return value.is_boolean();
}
template <>
bool holds<std::string>(const Json& value) {
  return value.is_string();
}
template <>
bool holds<int64_t>(const Json& value) {
  return value.is_number_integer();
}
template <>
bool holds<double>(const Json& value) {
  return value.is_number();
}
template <>
bool holds<Json>(const Json&) {
  return true;
}

template <class T>
const char* name_of() {
  if constexpr (std::is_same_v<T, bool>) return "true or false";
  if constexpr (std::is_same_v<T, std::string>) return "a string";
  if constexpr (std::is_same_v<T, int64_t>) return "an integer";
  if constexpr (std::is_same_v<T, double>) return "a number";
  return "a value";
}

}  // namespace

template <class T>
T need(const Json& object, const char* key, const std::string& where) {
  HEADLOOM_CHECK(object.is_object(), where, "an object", object.type_name());
  const auto found = object.find(key);
  HEADLOOM_CHECK(found != object.end(), where, cat('"', key, '"'), "none");
  HEADLOOM_CHECK(holds<T>(*found), where, cat('"', key, "\": ", name_of<T>()), found->type_name());
  return found->template get<T>();
}

template <class T>
T optional_value(const Json& object, const char* key, const T& fallback, const std::string& where) {
  HEADLOOM_CHECK(object.is_object(), where, "an object", object.type_name());
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return fallback;
  return need<T>(object, key, where);
}

std::string part_type(const Json& part, const std::vector<std::string>& known,
                      const std::string& where) {
  const auto type = need<std::string>(part, "type", where);
  for (const std::string& name : known) {
    if (name == type) return type;
  }
  const std::string nearest = nearest_name(type, known);
  fail(where, cat("a type among ", join(known)), cat('"', type, '"'),
       nearest.empty() ? "" : cat("The nearest is \"", nearest, "\"."));
}

Json parse_json(std::string_view text, const std::string& where) {
  try {
    Json json = Json::parse(text);
    HEADLOOM_CHECK(json.is_object(), where, "a JSON object", json.type_name());
    return json;
  } catch (const Json::exception& error) {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: ..."
    const std::string message = error.what();
    const size_t begin = message.find("] ");
    fail(where, "a JSON object", begin == std::string::npos ? message : message.substr(begin + 2));
  }
}

#define HEADLOOM_JSON_TYPE(T)                                       \
  template T need<T>(const Json&, const char*, const std::string&); \
  template T optional_value<T>(const Json&, const char*, const T&, const std::string&);
HEADLOOM_JSON_TYPE(bool)
HEADLOOM_JSON_TYPE(std::string)
HEADLOOM_JSON_TYPE(int64_t)
HEADLOOM_JSON_TYPE(double)
HEADLOOM_JSON_TYPE(Json)
#undef HEADLOOM_JSON_TYPE

}  // namespace headloom::text

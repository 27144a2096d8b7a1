#pragma once

#include <nlohmann/json.hpp>

#include "headloom/tasks/task.h"

// JSON has no NaN or infinity: they are written as null, and null reads back as NaN.
namespace headloom::train {

using Json = nlohmann::ordered_json;

inline Json to_json(const tasks::Metrics& metrics) {
  Json object = Json::object();
  for (const auto& [name, value] : metrics) object[name] = value;
  return object;
}

inline double read_number(const Json& value) {
  return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
}

inline tasks::Metrics read_metrics(const Json& object) {
  tasks::Metrics metrics;
  for (const auto& [name, value] : object.items()) metrics.emplace_back(name, read_number(value));
  return metrics;
}

// One line. Bytes that are not UTF-8 are replaced.
inline std::string dump(const Json& object, int indent = -1) {
  return object.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace headloom::train

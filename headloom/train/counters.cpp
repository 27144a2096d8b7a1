#include "headloom/train/counters.h"

#include "headloom/base/check.h"
#include "headloom/train/metrics_json.h"

namespace headloom::train {
namespace {

constexpr const char* kKey = "counters";

// One list for both directions.
template <class AnyCounters, class Visitor>
void visit(AnyCounters& c, const Visitor& visitor) {
  visitor("step", c.step);
  visitor("tokens", c.tokens);
  visitor("train_seconds", c.train_seconds);
  visitor("validated_step", c.validated_step);
  visitor("last_metrics", c.last_metrics);
  visitor("best_metrics", c.best_metrics);
  visitor("best_step", c.best_step);
  visitor("best_stale", c.best_stale);
  visitor("loss_sum", c.loss_sum);
  visitor("loss_weight", c.loss_weight);
  visitor("interval_seconds", c.interval_seconds);
  visitor("interval_tokens", c.interval_tokens);
}

struct Writer {
  Json& object;
  void operator()(const char* key, int64_t value) const { object[key] = value; }
  void operator()(const char* key, double value) const { object[key] = value; }
  void operator()(const char* key, const tasks::Metrics& value) const {
    object[key] = to_json(value);
  }
};

struct Reader {
  const Json& object;
  void operator()(const char* key, int64_t& value) const { value = object.at(key).get<int64_t>(); }
  void operator()(const char* key, double& value) const { value = read_number(object.at(key)); }
  void operator()(const char* key, tasks::Metrics& value) const {
    value = read_metrics(object.at(key));
  }
};

}  // namespace

std::map<std::string, std::string> to_values(const Counters& counters) {
  Json object;
  visit(counters, Writer{object});
  return {{kKey, dump(object)}};
}

Counters read_counters(const std::map<std::string, std::string>& values) {
  const auto found = values.find(kKey);
  HEADLOOM_CHECK(found != values.end(), "checkpoint", "the loop's counters", "none");
  Counters counters;
  try {
    const Json object = Json::parse(found->second);
    visit(counters, Reader{object});
  } catch (const Json::exception& error) {
    fail("checkpoint", "the loop's counters", error.what());
  }
  return counters;
}

double main_value(const tasks::Task& task, const tasks::Metrics& metrics) {
  const std::string name = task.main_metric().name;
  for (const auto& [each, value] : metrics) {
    if (each == name) return value;
  }
  fail("task " + task.name(), "the main metric " + name + " among its metrics", "it missing");
}

}  // namespace headloom::train

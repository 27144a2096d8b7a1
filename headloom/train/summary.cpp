#include "headloom/base/check.h"
#include "headloom/train/files.h"
#include "headloom/train/metrics_json.h"
#include "headloom/train/run.h"

namespace headloom::train {
namespace {

constexpr uint64_t kMaxBytes = 1 << 20;

// One list for both directions.
template <class Summary, class Visitor>
void visit(Summary& s, const Visitor& visitor) {
  visitor("completed", s.completed);
  visitor("step", s.step);
  visitor("parameters", s.parameters);
  visitor("flops_per_sequence", s.flops_per_sequence);
  visitor("tokens_per_second", s.tokens_per_second);
  visitor("train_seconds", s.train_seconds);
  visitor("peak_memory_bytes", s.peak_memory_bytes);
  visitor("main_metric", s.main_metric);
  visitor("higher_is_better", s.higher_is_better);
  visitor("final_metrics", s.final_metrics);
  visitor("best_metrics", s.best_metrics);
  visitor("best_step", s.best_step);
}

struct Writer {
  Json& object;
  template <class T>
  void operator()(const char* key, const T& value) const {
    object[key] = value;
  }
  void operator()(const char* key, const tasks::Metrics& value) const {
    object[key] = to_json(value);
  }
};

struct Reader {
  const Json& object;
  template <class T>
  void operator()(const char* key, T& value) const {
    value = object.at(key).get<T>();
  }
  void operator()(const char* key, double& value) const { value = read_number(object.at(key)); }
  void operator()(const char* key, tasks::Metrics& value) const {
    value = read_metrics(object.at(key));
  }
};

}  // namespace

void write_summary(const std::string& path, const RunSummary& summary) {
  Json object;
  visit(summary, Writer{object});
  write_text(path, dump(object, 2) + '\n');
}

RunSummary read_summary(const std::string& path) {
  const std::string text = read_text(path, kMaxBytes);
  RunSummary summary;
  try {
    const Json object = Json::parse(text);
    visit(summary, Reader{object});
  } catch (const Json::exception& error) {
    fail(path, "the summary of a run", error.what());
  }
  return summary;
}

}  // namespace headloom::train

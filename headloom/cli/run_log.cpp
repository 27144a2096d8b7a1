#include "headloom/cli/run_log.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "headloom/base/check.h"

namespace headloom::cli {
namespace {

using Json = nlohmann::ordered_json;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

double number(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number() ? found->get<double>() : kNan;
}

tasks::Metrics metrics_of(const Json& event) {
  tasks::Metrics metrics;
  const auto found = event.find("metrics");
  if (found == event.end() || !found->is_object()) return metrics;
  for (const auto& [name, value] : found->items()) {
    metrics.emplace_back(name, value.is_number() ? value.get<double>() : kNan);
  }
  return metrics;
}

// Time at a step, by what the log says of the steps around it.
double seconds_at(const std::vector<TrainPoint>& points, int64_t step) {
  TrainPoint before{0, 0.0, 0.0, 0.0, 0.0};
  for (const TrainPoint& point : points) {
    if (point.step >= step) {
      const auto share = static_cast<double>(step - before.step) /
                         static_cast<double>(std::max<int64_t>(1, point.step - before.step));
      return before.seconds + share * (point.seconds - before.seconds);
    }
    before = point;
  }
  return before.seconds;
}

class Reader {
 public:
  void event(const Json& event) {
    const std::string kind = event.value("event", "");
    const auto step = event.value("step", int64_t{0});
    if (kind == "train") {
      const double tokens = number(event, "tokens"), rate = number(event, "tokens_per_second");
      if (rate > 0.0 && tokens > tokens_) seconds_ += (tokens - tokens_) / rate;
      tokens_ = tokens;
      log_.train.push_back({step, seconds_, number(event, "loss"), number(event, "lr"), rate});
    } else if (kind == "validation") {
      log_.validation.push_back({step, kNan, metrics_of(event)});
    }
  }

  RunLog finish() {
    for (ValidationPoint& point : log_.validation) {
      point.seconds = seconds_at(log_.train, point.step);
    }
    return std::move(log_);
  }

 private:
  RunLog log_;
  double tokens_ = 0.0, seconds_ = 0.0;
};

}  // namespace

RunLog read_run_log(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  HEADLOOM_CHECK(file, path, "the metrics of a run", "no file that can be read");
  Reader reader;
  int64_t number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    const bool cut_short = file.eof();
    if (line.empty()) continue;
    const Json event = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (event.is_object()) {
      reader.event(event);
    } else if (!cut_short) {
      fail(cat(path, ":", number), "a JSON object", line.substr(0, 60));
    }
  }
  return reader.finish();
}

double metric_of(const tasks::Metrics& metrics, const std::string& name) {
  for (const auto& [key, value] : metrics) {
    if (key == name) return value;
  }
  return kNan;
}

Curve training_loss(const RunLog& log) {
  Curve curve;
  for (const TrainPoint& point : log.train) {
    curve.push_back({point.step, point.seconds, point.loss});
  }
  return curve;
}

Curve validation_metric(const RunLog& log, const std::string& name) {
  Curve curve;
  for (const ValidationPoint& point : log.validation) {
    curve.push_back({point.step, point.seconds, metric_of(point.metrics, name)});
  }
  return curve;
}

report::Series mean_series(const std::string& name, const std::vector<Curve>& runs, Across across) {
  std::map<int64_t, std::vector<CurvePoint>> by_step;
  for (const Curve& run : runs) {
    for (const CurvePoint& point : run) by_step[point.step].push_back(point);
  }
  report::Series series{name, {}, {}};
  for (const auto& [step, points] : by_step) {
    if (points.size() != runs.size()) continue;
    double seconds = 0.0, value = 0.0;
    for (const CurvePoint& point : points) {
      seconds += point.seconds / static_cast<double>(points.size());
      value += point.value / static_cast<double>(points.size());
    }
    const double x = across == Across::kSeconds ? seconds : static_cast<double>(step);
    series.points.emplace_back(x, value);
    if (runs.size() < 2) continue;
    const auto by_value = [](const CurvePoint& a, const CurvePoint& b) {
      return a.value < b.value;
    };
    const auto [low, high] = std::minmax_element(points.begin(), points.end(), by_value);
    series.band.emplace_back(low->value, high->value);
  }
  return series;
}

}  // namespace headloom::cli

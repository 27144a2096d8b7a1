#include "headloom/cli/comparison.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "headloom/base/check.h"
#include "headloom/base/nearest.h"
#include "headloom/cli/run_report.h"

namespace headloom::cli {
namespace {

using Json = nlohmann::ordered_json;
using Runs = std::vector<const ComparedRun*>;

constexpr double kMebibyte = 1 << 20;

Runs finished_runs(const Comparison& comparison, const std::string& mechanism) {
  Runs runs;
  for (const int64_t seed : comparison.seeds) {
    for (const ComparedRun& run : comparison.runs) {
      if (run.mechanism == mechanism && run.seed == seed && run.summary) runs.push_back(&run);
    }
  }
  return runs;
}

const train::RunSummary& any_summary(const Comparison& comparison) {
  for (const ComparedRun& run : comparison.runs) {
    if (run.summary) return *run.summary;
  }
  std::vector<std::string> reasons;
  for (const ComparedRun& run : comparison.runs) {
    reasons.push_back(cat(run.mechanism, " seed ", run.seed, ": ", run.failure));
  }
  throw RunError(cat("compare: expected a finished run; found none (", join(reasons, "; "), ")."));
}

template <class Value>
std::vector<double> values_of(const Runs& runs, const Value& value) {
  std::vector<double> values;
  for (const ComparedRun* run : runs) values.push_back(static_cast<double>(value(*run->summary)));
  return values;
}

std::vector<double> final_values(const Runs& runs, const std::string& metric) {
  return values_of(runs,
                   [&](const auto& summary) { return metric_of(summary.final_metrics, metric); });
}

report::Estimate paired_difference(const Runs& runs, const Runs& baseline,
                                   const std::string& metric) {
  Runs left, right;
  for (const ComparedRun* run : runs) {
    for (const ComparedRun* other : baseline) {
      if (run->seed != other->seed) continue;
      left.push_back(run);
      right.push_back(other);
    }
  }
  return report::estimate_difference(final_values(left, metric), final_values(right, metric));
}

std::string verdict_of(const report::Estimate& difference, bool higher_is_better) {
  if (!(std::abs(difference.mean) > difference.half_width)) return "undecided";
  return (difference.mean > 0) == higher_is_better ? "better" : "worse";
}

void set_costs(MechanismResult& result, const Runs& runs) {
  if (runs.empty()) return;
  result.parameters = runs[0]->summary->parameters;
  result.flops_per_sequence = runs[0]->summary->flops_per_sequence;
  result.tokens_per_second = report::median(
      values_of(runs, [](const auto& summary) { return summary.tokens_per_second; }));
  result.peak_memory_bytes = report::median(
      values_of(runs, [](const auto& summary) { return summary.peak_memory_bytes; }));
}

std::vector<std::string> row_of(const MechanismResult& result) {
  std::vector<std::string> row{result.mechanism};
  if (result.seeds.empty()) {
    row.push_back("failed");
    return row;
  }
  row.push_back(format_estimate(result.metric));
  const bool is_baseline = result.verdict == "baseline";
  row.push_back(is_baseline ? "" : format_estimate(result.difference, /*sign=*/true));
  row.push_back(result.verdict);
  for (const auto& [name, value] : result.other_metrics)
    row.push_back(report::format_number(value));
  row.push_back(with_commas(result.parameters));
  row.push_back(report::format_number(result.flops_per_sequence / 1e6));
  row.push_back(with_commas(std::llround(result.tokens_per_second)));
  row.push_back(with_commas(std::llround(result.peak_memory_bytes / kMebibyte)));
  return row;
}

std::string reading_note(const Comparison& comparison) {
  const train::RunSummary& summary = any_summary(comparison);
  std::string note = cat(summary.main_metric, ": ", summary.higher_is_better ? "higher" : "lower",
                         " is better; validation at the end of training. ");
  if (comparison.seeds.size() > 1) {
    note += cat("Mean and 95 % interval (Student t) over ", comparison.seeds.size(),
                " seeds; differences are paired by seed, which fixes the initial values' seed and "
                "the order of the data. \"undecided\": the interval holds zero. Intervals are for "
                "each row alone, not for all rows at once. ");
  } else {
    note += "One seed shows no spread, so nothing is decided. ";
  }
  note += "Speed and memory are medians over seeds, each run in a process of its own.";
  for (const ComparedRun& run : comparison.runs) {
    if (!run.summary) note += cat(" ", run.mechanism, ", seed ", run.seed, ": ", run.failure, ".");
  }
  return note;
}

report::Table runs_table(const Comparison& comparison, const std::string& metric) {
  report::Table table{"Runs",
                      {"mechanism", "seed", metric + " at the end", "best " + metric, "at step",
                       "training seconds", "tokens/s", "peak memory MiB"},
                      {},
                      ""};
  for (const std::string& mechanism : comparison.mechanisms) {
    for (const ComparedRun* run : finished_runs(comparison, mechanism)) {
      const train::RunSummary& summary = *run->summary;
      table.rows.push_back(
          {mechanism, std::to_string(run->seed),
           report::format_number(metric_of(summary.final_metrics, metric)),
           report::format_number(metric_of(summary.best_metrics, metric)),
           with_commas(summary.best_step), report::format_number(summary.train_seconds),
           with_commas(std::llround(summary.tokens_per_second)),
           with_commas(std::llround(static_cast<double>(summary.peak_memory_bytes) / kMebibyte))});
    }
  }
  return table;
}

template <class CurveOf>
report::Chart chart_of(const Comparison& comparison, const std::string& title,
                       const std::string& y_label, Across across, const CurveOf& curve_of) {
  report::Chart chart{
      title, across == Across::kSteps ? "step" : "seconds of training", y_label, {}, false};
  for (const std::string& mechanism : comparison.mechanisms) {
    std::vector<Curve> curves;
    for (const ComparedRun* run : finished_runs(comparison, mechanism)) {
      curves.push_back(curve_of(run->log));
    }
    chart.series.push_back(mean_series(mechanism, curves, across));
  }
  return chart;
}

std::vector<report::Chart> charts_of(const Comparison& comparison) {
  std::vector<report::Chart> charts;
  const auto add = [&](const std::string& title, const std::string& label, const auto& curve_of) {
    for (const Across across : {Across::kSteps, Across::kSeconds}) {
      const char* suffix = across == Across::kSteps ? " by step" : " by time";
      charts.push_back(chart_of(comparison, title + suffix, label, across, curve_of));
    }
  };
  add("Training loss", "loss", training_loss);
  // Closing metrics have no curve.
  for (const auto& [name, value] : any_summary(comparison).best_metrics) {
    add("Validation " + name, name,
        [&](const RunLog& log) { return validation_metric(log, name); });
  }
  return charts;
}

report::Table machine_table(const Comparison& comparison) {
  std::vector<std::string> seeds;
  for (const int64_t seed : comparison.seeds) seeds.push_back(std::to_string(seed));
  const Machine& machine = comparison.machine;
  const double gib = static_cast<double>(machine.memory_bytes) / (1 << 30);
  return {"Made with",
          {},
          {{"processor", machine.processor},
           {"cores", cat(machine.cores, ", of which ", machine.threads, " threads are used")},
           {"memory", report::format_number(gib, 3) + " GiB"},
           {"headloom", machine.headloom_version},
           {"torch", machine.torch_version},
           {"seeds", join(seeds)},
           {"command", comparison.command}},
          ""};
}

Json json_of(const report::Estimate& estimate) {
  return {
      {"mean", estimate.mean}, {"half_width_95", estimate.half_width}, {"count", estimate.count}};
}

Json json_of(const tasks::Metrics& metrics) {
  Json object = Json::object();
  for (const auto& [name, value] : metrics) object[name] = value;
  return object;
}

Json json_of(const ComparedRun& run) {
  Json object{{"seed", run.seed}};
  if (!run.summary) {
    object["failure"] = run.failure;
    return object;
  }
  const train::RunSummary& summary = *run.summary;
  object["step"] = summary.step;
  object["final_metrics"] = json_of(summary.final_metrics);
  object["best_metrics"] = json_of(summary.best_metrics);
  object["best_step"] = summary.best_step;
  object["tokens_per_second"] = summary.tokens_per_second;
  object["train_seconds"] = summary.train_seconds;
  object["peak_memory_bytes"] = summary.peak_memory_bytes;
  return object;
}

}  // namespace

std::string format_estimate(const report::Estimate& estimate, bool sign) {
  const char* plus = sign && estimate.mean >= 0 ? "+" : "";
  if (estimate.count < 2) {
    return cat(plus, report::format_number(estimate.mean), estimate.count == 1 ? " (1 seed)" : "");
  }
  if (!(estimate.half_width > 0.0)) {
    return cat(plus, report::format_number(estimate.mean), " \u00b1 ",
               report::format_number(estimate.half_width, 1));
  }
  const int digits =
      std::clamp(1 - static_cast<int>(std::floor(std::log10(estimate.half_width))), 0, 9);
  char buffer[96];
  std::snprintf(buffer, sizeof buffer, "%s%.*f \u00b1 %.*f", plus, digits, estimate.mean, digits,
                estimate.half_width);
  return buffer;
}

std::vector<MechanismResult> results_of(const Comparison& comparison) {
  const train::RunSummary& shared = any_summary(comparison);
  const Runs baseline = finished_runs(comparison, comparison.mechanisms.at(0));
  std::vector<MechanismResult> results;
  for (const std::string& mechanism : comparison.mechanisms) {
    const Runs runs = finished_runs(comparison, mechanism);
    MechanismResult result;
    result.mechanism = mechanism;
    for (const ComparedRun* run : runs) result.seeds.push_back(run->seed);
    result.metric = report::estimate_mean(final_values(runs, shared.main_metric));
    result.difference = paired_difference(runs, baseline, shared.main_metric);
    result.verdict =
        results.empty() ? "baseline" : verdict_of(result.difference, shared.higher_is_better);
    for (const auto& [name, value] : shared.final_metrics) {
      if (name == shared.main_metric) continue;
      result.other_metrics.emplace_back(name, report::estimate_mean(final_values(runs, name)).mean);
    }
    set_costs(result, runs);
    results.push_back(std::move(result));
  }
  return results;
}

report::Table result_table(const Comparison& comparison) {
  const train::RunSummary& shared = any_summary(comparison);
  report::Table table{"Result", {"mechanism", shared.main_metric}, {}, reading_note(comparison)};
  table.columns.push_back("difference to " + comparison.mechanisms.at(0));
  table.columns.push_back("verdict");
  for (const auto& [name, value] : shared.final_metrics) {
    if (name != shared.main_metric) table.columns.push_back(name);
  }
  for (const char* name : {"parameters", "forward MFLOPs", "tokens/s", "peak memory MiB"}) {
    table.columns.emplace_back(name);
  }
  for (const MechanismResult& result : results_of(comparison)) table.rows.push_back(row_of(result));
  return table;
}

report::Page comparison_page(const Comparison& comparison) {
  report::Page page;
  page.title = comparison.title;
  page.subtitle = cat(join(comparison.mechanisms), "; ", comparison.seeds.size(),
                      comparison.seeds.size() == 1 ? " seed. " : " seeds each. ",
                      "Lines are means over seeds, bands reach from the lowest to the highest.");
  page.tables = {result_table(comparison)};
  page.more_tables = {runs_table(comparison, any_summary(comparison).main_metric),
                      machine_table(comparison)};
  page.charts = charts_of(comparison);
  page.listings = {{"Recipe", comparison.recipe}};
  return page;
}

std::string comparison_json(const Comparison& comparison) {
  const train::RunSummary& shared = any_summary(comparison);
  const Machine& machine = comparison.machine;
  Json object{{"title", comparison.title},
              {"main_metric", shared.main_metric},
              {"higher_is_better", shared.higher_is_better},
              {"baseline", comparison.mechanisms.at(0)},
              {"seeds", comparison.seeds},
              {"command", comparison.command},
              {"machine",
               {{"processor", machine.processor},
                {"cores", machine.cores},
                {"threads", machine.threads},
                {"memory_bytes", machine.memory_bytes},
                {"headloom", machine.headloom_version},
                {"torch", machine.torch_version}}},
              {"mechanisms", Json::array()},
              {"recipe", comparison.recipe}};
  for (const MechanismResult& result : results_of(comparison)) {
    Json entry{{"mechanism", result.mechanism},
               {"metric", json_of(result.metric)},
               {"difference", json_of(result.difference)},
               {"verdict", result.verdict},
               {"other_metrics", json_of(result.other_metrics)},
               {"parameters", result.parameters},
               {"flops_per_sequence", result.flops_per_sequence},
               {"tokens_per_second", result.tokens_per_second},
               {"peak_memory_bytes", result.peak_memory_bytes},
               {"runs", Json::array()}};
    for (const ComparedRun& run : comparison.runs) {
      if (run.mechanism == result.mechanism) entry["runs"].push_back(json_of(run));
    }
    object["mechanisms"].push_back(std::move(entry));
  }
  return object.dump(2, ' ', false, Json::error_handler_t::replace) + '\n';
}

}  // namespace headloom::cli

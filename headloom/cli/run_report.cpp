#include "headloom/cli/run_report.h"

#include <cmath>

#include "headloom/base/check.h"
#include "headloom/cli/machine.h"
#include "headloom/cli/output.h"
#include "headloom/cli/run_log.h"

namespace headloom::cli {
namespace {

report::Table cost_table(const train::RunSummary& summary) {
  const double mib = static_cast<double>(summary.peak_memory_bytes) / (1 << 20);
  return {"Cost",
          {"quantity", "value"},
          {{"parameters", with_commas(summary.parameters)},
           {"forward MFLOPs per sequence", report::format_number(summary.flops_per_sequence / 1e6)},
           {"training tokens per second", report::format_number(summary.tokens_per_second, 3)},
           {"training seconds", report::format_number(summary.train_seconds)},
           {"peak memory of the process, MiB", report::format_number(mib)}},
          ""};
}

report::Chart chart_of(const std::string& title, const std::string& y_label, const Curve& curve) {
  return {title, "step", y_label, {mean_series("", {curve}, Across::kSteps)}, false};
}

std::vector<report::Chart> charts_of(const RunLog& log) {
  Curve rates, throughput;
  for (const TrainPoint& point : log.train) {
    rates.push_back({point.step, point.seconds, point.lr});
    throughput.push_back({point.step, point.seconds, point.tokens_per_second});
  }
  std::vector<report::Chart> charts{chart_of("Training loss", "loss", training_loss(log))};
  if (!log.validation.empty()) {
    for (const auto& [name, value] : log.validation.front().metrics) {
      charts.push_back(chart_of("Validation " + name, name, validation_metric(log, name)));
    }
  }
  charts.push_back(chart_of("Learning rate", "", rates));
  charts.push_back(chart_of("Training throughput", "tokens per second", throughput));
  return charts;
}

}  // namespace

std::string with_commas(int64_t value) {
  std::string text = std::to_string(value);
  for (auto at = static_cast<int64_t>(text.size()) - 3; at > (value < 0); at -= 3) {
    text.insert(static_cast<size_t>(at), ",");
  }
  return text;
}

report::Table summary_table(const train::RunSummary& summary) {
  report::Table table{"", {"metric", "at the end", cat("at step ", summary.best_step)}, {}, ""};
  for (const auto& [name, value] : summary.final_metrics) {
    const double best = metric_of(summary.best_metrics, name);
    table.rows.push_back({name, report::format_number(value, 6),
                          std::isnan(best) ? "" : report::format_number(best, 6)});
  }
  table.note = cat("Validation at step ", summary.step, ", and at step ", summary.best_step,
                   ", where it was best.");
  return table;
}

std::string write_run_report(const std::string& folder, const train::Recipe& recipe,
                             const train::RunSummary& summary) {
  report::Page page;
  page.title = cat(recipe.task, ": ", recipe.model.mixer);
  page.subtitle = to_string(describe_machine(recipe.train.threads));
  page.tables = {summary_table(summary)};
  page.more_tables = {cost_table(summary)};
  page.tables[0].title = "Validation";
  page.charts = charts_of(read_run_log(folder + "/metrics.jsonl"));
  page.listings = {{"Recipe", train::to_toml(recipe)}};
  const std::string path = folder + "/report.html";
  write_file(path, report::render_html(page));
  return path;
}

}  // namespace headloom::cli

#include "headloom/cli/run_report.h"

#include <algorithm>
#include <cmath>

#include "headloom/base/check.h"
#include "headloom/cli/machine.h"
#include "headloom/cli/output.h"
#include "headloom/train/checkpoint.h"

namespace headloom::cli {
namespace {

constexpr const char* kLogitsMix = ".logits_proj";
constexpr const char* kWeightsMix = ".weights_proj";

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

report::Table progress_table(const RunLog& log) {
  report::Table table{"Validation so far", {"metric", "value"}, {}, "The run has not ended."};
  if (!log.train.empty()) {
    table.note = cat("The run has not ended; step ", log.train.back().step, " is its last so far.");
  }
  if (log.validation.empty()) return table;
  for (const auto& [name, value] : log.validation.back().metrics) {
    table.rows.push_back({name, report::format_number(value, 6)});
  }
  return table;
}

report::HeatMap heat_map_of(const std::string& name, const at::Tensor& matrix) {
  const at::Tensor values = matrix.to(at::kDouble).contiguous();
  const bool logits = name.ends_with(kLogitsMix);
  report::HeatMap map{name,
                      logits ? "head of queries and keys" : "head of the softmax",
                      logits ? "head of the softmax" : "head of the values",
                      {}};
  const double* row = values.const_data_ptr<double>();
  for (int64_t i = 0; i < values.size(0); ++i, row += values.size(1)) {
    map.values.emplace_back(row, row + values.size(1));
  }
  return map;
}

bool mixes_heads(const train::Recipe& recipe) {
  const tasks::EncoderDecoderParts& parts = recipe.parts;
  const std::string names[] = {recipe.model.mixer, parts.encoder_mixer.name,
                               parts.decoder_mixer.name, parts.cross_mixer.name};
  return std::find(std::begin(names), std::end(names), "talking_heads") != std::end(names);
}

// A checkpoint may be large: it is read only where it holds what is shown.
std::vector<report::HeatMap> head_mixes(const std::string& folder, const train::Recipe& recipe) {
  std::vector<report::HeatMap> maps;
  if (!mixes_heads(recipe)) return maps;
  std::vector<std::string> unread;
  const auto checkpoint = train::CheckpointFolder(folder + "/checkpoints").load_newest(unread);
  if (!checkpoint) return maps;
  for (const auto& [name, tensor] : checkpoint->model) {
    const bool mixes = name.ends_with(kLogitsMix) || name.ends_with(kWeightsMix);
    if (mixes && tensor.dim() == 2) maps.push_back(heat_map_of(name, tensor));
  }
  return maps;
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

report::Page run_page(const std::string& folder, const train::Recipe& recipe, const RunLog& log,
                      const std::optional<train::RunSummary>& summary) {
  report::Page page;
  page.title = cat(recipe.task, ": ", recipe.model.mixer);
  page.subtitle = to_string(describe_machine(recipe.train.threads));
  if (summary) {
    page.tables = {summary_table(*summary)};
    page.tables[0].title = "Validation";
    page.more_tables = {cost_table(*summary)};
  } else {
    page.tables = {progress_table(log)};
  }
  page.charts = charts_of(log);
  try {
    page.heat_maps = head_mixes(folder, recipe);
  } catch (const Error& error) {
    page.subtitle += cat(". The matrices that mix heads are left out: ", error.what());
  }
  page.listings = {{"Recipe", train::to_toml(recipe)}};
  return page;
}

std::string write_run_report(const std::string& folder, const train::Recipe& recipe,
                             const train::RunSummary& summary) {
  const std::string path = folder + "/report.html";
  const RunLog log = read_run_log(folder + "/metrics.jsonl");
  write_file(path, report::render_html(run_page(folder, recipe, log, summary)));
  return path;
}

}  // namespace headloom::cli

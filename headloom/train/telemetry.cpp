#include "headloom/train/telemetry.h"

#include <cstdio>
#include <iostream>

#include "headloom/base/check.h"
#include "headloom/train/metrics_json.h"

namespace headloom::train {
namespace {

DisplayOptions display_options(const RunOptions& options) {
  DisplayOptions display = detect_display();
  display.quiet = options.quiet;
  display.label = options.label;
  return display;
}

std::string show(const tasks::Metrics& metrics) {
  std::string text;
  for (const auto& [name, value] : metrics) {
    char number[32];
    std::snprintf(number, sizeof number, "%.4f", value);
    text += cat(text.empty() ? "" : "  ", name, ' ', number);
  }
  return text;
}

double ratio(double amount, double seconds) {
  return seconds > 0.0 ? amount / seconds : 0.0;
}

}  // namespace

Telemetry::Telemetry(const Recipe& recipe, const RunOptions& options, int64_t resumed_step)
    : steps_(recipe.train.steps),
      log_every_(recipe.train.log_every),
      file_(options.folder + "/metrics.jsonl", resumed_step),
      display_(std::cerr, display_options(options)),
      first_step_(resumed_step) {}

void Telemetry::write(const std::string& line) {
  const bool written = file_.append(line);
  if (!written && !file_failed_) {
    display_.warning("metrics.jsonl cannot be written; its lines are kept and tried again");
  }
  file_failed_ = !written;
}

void Telemetry::start(const std::string& mixer, int64_t parameters, double flops_per_sequence) {
  write(dump(Json{{"event", "start"},
                  {"step", 0},
                  {"mixer", mixer},
                  {"parameters", parameters},
                  {"flops_per_sequence", flops_per_sequence}}));
  display_.note(cat(mixer, ": ", parameters, " parameters, ", steps_, " steps"));
}

void Telemetry::resume(int64_t step) {
  write(dump(Json{{"event", "resume"}, {"step", step}}));
  display_.note(cat("resuming from step ", step));
}

void Telemetry::step(Counters& counters, const StepResult& result) {
  counters.loss_sum += result.loss * result.weight;
  counters.loss_weight += result.weight;
  counters.interval_seconds += result.seconds;
  counters.interval_tokens += result.tokens;

  const bool due = counters.step % log_every_ == 0 || counters.step == steps_;
  const double rate =
      ratio(static_cast<double>(counters.interval_tokens), counters.interval_seconds);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin_;
  const auto done = static_cast<double>(counters.step - first_step_);
  ProgressLine line{counters.step,   steps_, counters.loss_sum / counters.loss_weight,
                    result.lr,       rate,   0.0,
                    last_validation_};
  line.seconds_left = elapsed.count() / done * static_cast<double>(steps_ - counters.step);
  display_.progress(line, due);
  if (!due) return;
  write(dump(Json{{"event", "train"},
                  {"step", counters.step},
                  {"loss", line.loss},
                  {"lr", result.lr},
                  {"grad_norm", result.grad_norm},
                  {"tokens_per_second", rate},
                  {"tokens", counters.tokens}}));
  counters.loss_sum = counters.loss_weight = counters.interval_seconds = 0.0;
  counters.interval_tokens = 0;
}

void Telemetry::validation(const Counters& counters, double seconds, bool is_best) {
  last_validation_ = show(counters.last_metrics);
  write(dump(Json{{"event", "validation"},
                  {"step", counters.step},
                  {"metrics", to_json(counters.last_metrics)},
                  {"seconds", seconds}}));
  display_.note(cat("step ", counters.step, "  validation  ", last_validation_, "  (",
                    format_duration(seconds), is_best ? ", best)" : ")"));
}

void Telemetry::warning(int64_t step, const std::string& text) {
  write(dump(Json{{"event", "warning"}, {"step", step}, {"message", text}}));
  display_.warning(text);
}

void Telemetry::error(int64_t step, const std::string& text) {
  write(dump(Json{{"event", "error"}, {"step", step}, {"message", text}}));
}

void Telemetry::end(const RunSummary& summary, const std::string& reason) {
  write(dump(Json{{"event", "end"},
                  {"step", summary.step},
                  {"completed", summary.completed},
                  {"reason", reason}}));
  display_.note(cat(summary.completed ? "done at step " : "stopped and saved at step ",
                    summary.step, " after ", format_duration(summary.train_seconds),
                    " of training"));
}

}  // namespace headloom::train

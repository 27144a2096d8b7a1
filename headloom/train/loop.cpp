#include "headloom/train/loop.h"

#include <torch/utils.h>

#include <chrono>
#include <cmath>
#include <iostream>

#include "headloom/base/check.h"
#include "headloom/train/generator.h"
#include "headloom/train/initial.h"
#include "headloom/train/memory.h"
#include "headloom/train/signals.h"
#include "headloom/train/validate.h"

namespace headloom::train {
namespace {

const char* const kOptimizer = "optimizer.";
const char* const kAverage = "ema.";

std::shared_ptr<tasks::Model> make_model(const Recipe& recipe, const tasks::Task& task,
                                         at::Device device, const RunOptions& options,
                                         bool resumed) {
  torch::manual_seed(recipe.train.seed);
  std::shared_ptr<tasks::Model> model = task.make_model(recipe.model);
  if (const std::string initial = initial_path(recipe); !initial.empty() && !resumed) {
    const InitialReport report = load_initial(initial, *model);
    if (!options.quiet) std::cerr << options.label << report.text(initial) << '\n';
  }
  Alignment::attach(recipe.alignment, *model);
  model->to(device);
  model->train();
  // Models draw different amounts for their weights; what training draws must not depend on it.
  torch::manual_seed(~recipe.train.seed);
  return model;
}

void append(NamedTensors& all, const NamedTensors& more) {
  all.insert(all.end(), more.begin(), more.end());
}

}  // namespace

bool is_finished(const TrainConfig& config, const Counters& counters) {
  return counters.step >= config.steps ||
         (config.patience > 0 && counters.best_stale >= config.patience);
}

Loop::Loop(const Recipe& recipe, const tasks::Task& task, const RunOptions& options,
           const std::optional<Checkpoint>& checkpoint)
    : recipe_(recipe),
      task_(task),
      options_(options),
      device_(device_of(recipe)),
      counters_(checkpoint ? read_counters(checkpoint->values) : Counters{}),
      recipe_text_(to_toml(recipe)),
      model_(make_model(recipe, task, device_, options, checkpoint.has_value())),
      optimizer_(std::make_unique<Optimizer>(recipe.optimizer, *model_)),
      stepper_(recipe, task, *model_, *optimizer_),
      average_(recipe.train.ema > 0.0 ? std::make_unique<WeightAverage>(recipe.train.ema, *model_)
                                      : nullptr),
      checkpoints_(options.folder + "/checkpoints"),
      telemetry_(recipe, options, counters_.step),
      resumed_(checkpoint.has_value()) {
  if (checkpoint) restore(*checkpoint);
}

void Loop::restore(const Checkpoint& checkpoint) {
  load_weights(options_.folder, checkpoint.model, *model_);
  optimizer_->load(with_prefix(kOptimizer, checkpoint.state));
  if (average_) average_->load(with_prefix(kAverage, checkpoint.state));
  restore_generators(checkpoint.state, device_);
}

Checkpoint Loop::checkpoint() const {
  Checkpoint checkpoint;
  checkpoint.step = counters_.step;
  checkpoint.model = model_tensors(*model_);
  checkpoint.state = generator_state(device_);
  append(checkpoint.state, under_prefix(kOptimizer, optimizer_->state()));
  if (average_) append(checkpoint.state, under_prefix(kAverage, average_->state()));
  checkpoint.values = to_values(counters_);
  checkpoint.recipe = recipe_text_;
  return checkpoint;
}

RunSummary Loop::run() {
  const SignalGuard signals;
  if (resumed_) {
    telemetry_.resume(counters_.step);
  } else {
    telemetry_.start(recipe_.model.mixer, count_parameters(*model_),
                     model_->flops(task_.typical_length()));
  }
  try {
    advance();
    close();
  } catch (const std::exception& error) {
    telemetry_.error(counters_.step, error.what());
    throw;
  }
  return finish();
}

void Loop::advance() {
  // Each turn does the one thing that is due, so that a run which stopped between an update and its
  // validation goes on with the validation.
  while (!SignalGuard::received()) {
    if (validation_due()) {
      validate();
    } else if (is_finished(recipe_.train, counters_)) {
      return;
    } else if (checkpoint_due()) {
      save();
    } else {
      update();
    }
  }
}

void Loop::update() {
  StepResult result = stepper_(counters_.step + 1);
  ++counters_.step;
  if (average_) {
    const auto begin = std::chrono::steady_clock::now();
    average_->update(counters_.step);
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
    result.seconds += elapsed.count();
  }
  counters_.tokens += result.tokens;
  counters_.train_seconds += result.seconds;
  dirty_ = true;
  telemetry_.step(counters_, result);
}

bool Loop::validation_due() const {
  const int64_t step = counters_.step;
  return step > counters_.validated_step &&
         (step % recipe_.train.validate_every == 0 || step >= recipe_.train.steps);
}

bool Loop::checkpoint_due() const {
  return dirty_ && counters_.step % recipe_.train.checkpoint_every == 0 &&
         tried_step_ != counters_.step;
}

void Loop::validate() {
  const auto begin = std::chrono::steady_clock::now();
  std::optional<tasks::Metrics> metrics;
  {
    const SwapGuard averaged(average_.get());
    metrics = validate_unless([] { return SignalGuard::received() != 0; }, *model_, task_, recipe_);
  }
  if (!metrics) return;
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
  const double value = main_value(task_, *metrics);
  counters_.validated_step = counters_.step;
  counters_.last_metrics = *metrics;
  bool is_best = !std::isnan(value);
  if (is_best && counters_.best_step > 0) {
    const double best = main_value(task_, counters_.best_metrics);
    is_best = task_.main_metric().higher_is_better ? value > best : value < best;
  }
  if (is_best) {
    counters_.best_step = counters_.step;
    counters_.best_metrics = *metrics;
  }
  counters_.best_stale = is_best ? 0 : counters_.best_stale + 1;
  dirty_ = true;
  telemetry_.validation(counters_, elapsed.count(), is_best);
  if (is_best) save_best();
}

bool Loop::save() {
  tried_step_ = counters_.step;
  try {
    telemetry_.sync();
    checkpoints_.save(checkpoint(), recipe_.train.keep);
    dirty_ = false;
  } catch (const std::exception& error) {
    save_error_ = error.what();
    warn(cat("checkpoint of step ", counters_.step, " not saved: ", save_error_));
  }
  return !dirty_;
}

void Loop::save_best() {
  try {
    checkpoints_.save_best(checkpoint());
  } catch (const std::exception& error) {
    warn(cat("best checkpoint of step ", counters_.step, " not saved: ", error.what()));
  }
}

void Loop::close() {
  if (!is_finished(recipe_.train, counters_) || validation_due()) return;
  // What follows may take a while and is no part of a checkpoint.
  if (dirty_) save();
  const SwapGuard averaged(average_.get());
  closing_metrics_ = closing_unless([] { return SignalGuard::received() != 0; }, *model_, task_);
}

RunSummary Loop::summary() const {
  RunSummary summary;
  summary.completed = closing_metrics_.has_value();
  summary.step = counters_.step;
  summary.parameters = count_parameters(*model_);
  summary.flops_per_sequence = model_->flops(task_.typical_length());
  summary.train_seconds = counters_.train_seconds;
  if (counters_.train_seconds > 0.0) {
    summary.tokens_per_second = static_cast<double>(counters_.tokens) / counters_.train_seconds;
  }
  summary.peak_memory_bytes = peak_memory_bytes();
  summary.main_metric = task_.headline().name;
  summary.higher_is_better = task_.headline().higher_is_better;
  summary.final_metrics = counters_.last_metrics;
  if (closing_metrics_) {
    summary.final_metrics.insert(summary.final_metrics.end(), closing_metrics_->begin(),
                                 closing_metrics_->end());
  }
  summary.best_metrics = counters_.best_metrics;
  summary.best_step = counters_.best_step;
  return summary;
}

RunSummary Loop::finish() {
  const bool saved = !dirty_ || save();
  const RunSummary result = summary();
  const bool all_steps = result.step >= recipe_.train.steps;
  telemetry_.end(result, !result.completed ? "signal" : all_steps ? "steps" : "patience");
  telemetry_.sync();
  if (!saved) {
    throw RunError(
        cat(options_.folder, ": expected to save the last checkpoint; found ", save_error_,
            " Make room and run the same command: it goes on from the checkpoint before."));
  }
  write_summary(options_.folder + "/summary.json", result);
  return result;
}

}  // namespace headloom::train

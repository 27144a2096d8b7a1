#include "headloom/train/run.h"

#include <ATen/Parallel.h>

#include <filesystem>
#include <iostream>

#include "headloom/base/check.h"
#include "headloom/train/checkpoint.h"
#include "headloom/train/files.h"
#include "headloom/train/initial.h"
#include "headloom/train/loop.h"
#include "headloom/train/recipe_changes.h"
#include "headloom/train/run_lock.h"

namespace headloom::train {
namespace {

// The summary of a run with nothing left to do, or nothing.
std::optional<RunSummary> completed_summary(const std::string& folder, const Recipe& recipe,
                                            const Counters& counters) {
  const std::string path = folder + "/summary.json";
  if (!is_finished(recipe.train, counters) || !std::filesystem::exists(path)) return std::nullopt;
  const RunSummary summary = read_summary(path);
  if (summary.completed && summary.step == counters.step) return summary;
  return std::nullopt;
}

RunSummary train_in(const std::string& folder, const Recipe& recipe, const RunOptions& options,
                    const std::function<const tasks::Task&()>& task) {
  create_folder(folder);
  const RunLock lock(folder);
  const std::string recipe_text = to_toml(recipe);
  std::vector<std::string> warnings;
  const auto checkpoint = CheckpointFolder(folder + "/checkpoints").load_newest(warnings);
  if (checkpoint) {
    HEADLOOM_CHECK(!options.fresh, folder, "a folder without checkpoints for a fresh run",
                   cat("a checkpoint of step ", checkpoint->step),
                   "Choose another folder, or leave --fresh out to go on.");
    for (const std::string& change : check_resume(folder, checkpoint->recipe, recipe_text)) {
      warnings.push_back("the recipe has changed since the checkpoint: " + change);
    }
    const auto done = completed_summary(folder, recipe, read_counters(checkpoint->values));
    if (done) {
      if (!options.quiet) {
        std::cerr << folder << ": complete already, at step " << done->step << '\n';
      }
      return *done;
    }
  }
  write_text(folder + "/recipe.toml", recipe_text);
  if (recipe.train.threads > 0) at::set_num_threads(static_cast<int>(recipe.train.threads));
  const tasks::Task& the_task = task();
  the_task.keep(folder);
  Loop loop(recipe, the_task, options, checkpoint);
  for (const std::string& warning : warnings) loop.warn(warning);
  return loop.run();
}

}  // namespace

std::unique_ptr<tasks::Task> make_task(const Recipe& recipe) {
  tasks::TaskConfig config;
  config.batch_size = recipe.train.batch_size;
  config.seed = recipe.train.seed;
  config.base_folder = recipe.base_folder;
  config.run_folder = recipe.run_folder;
  const std::string initial = initial_path(recipe);
  if (std::filesystem::is_directory(initial)) config.initial_folder = initial;
  config.parts = recipe.parts;
  return tasks::make_task(recipe.task, config, recipe.task_options);
}

RunSummary train(const Recipe& recipe, const tasks::Task& task, const RunOptions& options) {
  return train_in(options.folder, recipe, options, [&]() -> const tasks::Task& { return task; });
}

RunSummary train(const Recipe& recipe, const RunOptions& options) {
  std::unique_ptr<tasks::Task> task;
  return train_in(options.folder, recipe, options, [&]() -> const tasks::Task& {
    Recipe placed = recipe;
    placed.run_folder = options.folder;
    task = make_task(placed);
    return *task;
  });
}

}  // namespace headloom::train

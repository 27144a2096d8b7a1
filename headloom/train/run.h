#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "headloom/tasks/task.h"
#include "headloom/train/recipe.h"

namespace headloom::train {

// What a run leaves in its folder:
//   recipe.toml     resolved
//   metrics.jsonl   one object a line: {"event": "start" | "resume" | "train" | "validation" |
//                   "warning" | "error" | "end", "step": ..., values}; numbers that are not finite
//                   are null
//   checkpoints/    see checkpoint.h
//   summary.json    written at the end: RunSummary
struct RunSummary {
  bool completed = false;  // false when a signal stopped it
  int64_t step = 0;
  int64_t parameters = 0;
  double flops_per_sequence = 0.0;  // one forward pass at the task's typical length
  double tokens_per_second = 0.0;   // training, validation and saving left out
  double train_seconds = 0.0;
  int64_t peak_memory_bytes = 0;  // of the process (VmHWM)
  std::string main_metric;        // what runs are compared by: the task's headline()
  bool higher_is_better = false;
  tasks::Metrics final_metrics;  // validation and closing metrics at the end
  tasks::Metrics best_metrics;   // validation where it was best
  int64_t best_step = 0;
};

struct RunOptions {
  std::string folder;
  bool fresh = false;  // refuse a folder that holds a checkpoint instead of resuming
  bool quiet = false;  // no progress; warnings and errors still show
  std::string label;   // in front of the progress line
};

// The task of a recipe, with its data.
std::unique_ptr<tasks::Task> make_task(const Recipe& recipe);

// Trains to the recipe's last step, resuming when the folder has a checkpoint. Resuming is exact: N
// + M steps equal N, stop, resume, M, bit for bit. SIGINT and SIGTERM finish the step, save and
// return with completed = false; a second one ends the process at once. A run that is already
// complete returns its summary. Progress, warnings and errors go to standard error.
//
// Error when another process trains in the folder; when its checkpoints come from another task,
// model, mixer, kind of optimizer, averaging or seed; when a loss or gradient is not finite (the
// checkpoints before it stay); and when the last checkpoint cannot be written. A failed checkpoint
// before the last is a warning.
RunSummary train(const Recipe& recipe, const RunOptions& options);
// The same on a task that exists already; recipe.task is then a name and nothing more.
RunSummary train(const Recipe& recipe, const tasks::Task& task, const RunOptions& options);

// The model of a run folder and the task it was trained on.
struct LoadedRun {
  Recipe recipe;
  std::unique_ptr<tasks::Task> task;
  std::shared_ptr<tasks::Model> model;  // in evaluation mode
  int64_t step = 0;
  std::string weights;  // "best", "newest", or the file
};
// `weights` is "best" (where validation was best), "newest", the path of a safetensors file, which
// may be relative to the folder of the run, or empty: best when there is one, else newest. Weights
// must match the model by name, shape and type. With averaged weights (train.ema) the averages are
// loaded, for they are what validation saw.
LoadedRun load_run(const std::string& folder, const std::vector<std::string>& overrides = {},
                   const std::string& weights = "");

// load_run() with tasks of the caller's: their names, and what makes one.
using TaskMaker = std::function<std::unique_ptr<tasks::Task>(const Recipe&)>;
LoadedRun load_run(const std::string& folder, const std::vector<std::string>& overrides,
                   const std::string& weights, const std::vector<std::string>& tasks,
                   const TaskMaker& make_task);

// Validation metrics of a model, on the device where it is and in the recipe's precision. Leaves
// torch's random generators and the model's mode as they were.
tasks::Metrics validate(tasks::Model& model, const tasks::Task& task, const Recipe& recipe);
// Those, and the task's closing metrics.
tasks::Metrics evaluate(tasks::Model& model, const tasks::Task& task, const Recipe& recipe);

RunSummary read_summary(const std::string& path);
void write_summary(const std::string& path, const RunSummary& summary);

}  // namespace headloom::train

#include <filesystem>
#include <iostream>

#include "headloom/base/check.h"
#include "headloom/train/checkpoint.h"
#include "headloom/train/run.h"
#include "headloom/train/step.h"
#include "headloom/train/weights.h"

namespace headloom::train {
namespace {

Checkpoint load_newest(const CheckpointFolder& checkpoints, const std::string& folder) {
  std::vector<std::string> warnings;
  std::optional<Checkpoint> newest = checkpoints.load_newest(warnings);
  for (const std::string& warning : warnings) std::cerr << "warning: " << warning << '\n';
  HEADLOOM_CHECK(newest, folder, "a run folder with a checkpoint", "none",
                 "`headloom train` makes one.");
  return std::move(*newest);
}

bool is_file_name(const std::string& weights) {
  return !weights.empty() && weights != "best" && weights != "newest";
}

std::string file_of_weights(const std::string& folder, const std::string& weights) {
  for (const std::string& path : {weights, folder + "/" + weights}) {
    if (std::filesystem::is_regular_file(path)) return path;
  }
  fail(weights, "\"best\", \"newest\" or a file of weights, here or in " + folder, "no such file",
       "`headloom average` makes one of several checkpoints.");
}

}  // namespace

LoadedRun load_run(const std::string& folder, const std::vector<std::string>& overrides,
                   const std::string& weights, const std::vector<std::string>& tasks,
                   const TaskMaker& make_task) {
  HEADLOOM_CHECK(std::filesystem::is_directory(folder), folder, "a run folder", "no such folder");
  const CheckpointFolder checkpoints(folder + "/checkpoints");
  const bool best = weights == "best" || (weights != "newest" && checkpoints.has_best());
  const Checkpoint checkpoint = best ? checkpoints.load_best() : load_newest(checkpoints, folder);

  LoadedRun run;
  run.step = checkpoint.step;
  run.weights = best ? "best" : "newest";
  run.recipe = parse_recipe(checkpoint.recipe, folder + "/recipe.toml", overrides, tasks);
  run.recipe.run_folder = folder;
  const at::Device device = device_of(run.recipe);
  run.task = make_task(run.recipe);
  run.model = run.task->make_model(run.recipe.model);
  run.model->to(device);
  if (is_file_name(weights)) {
    const std::string path = file_of_weights(folder, weights);
    load_weights(path, Alignment::dropped(read_safetensors(path).tensors), *run.model);
    run.weights = path;
  } else {
    load_weights(folder, Alignment::dropped(checkpoint.model), *run.model);
    const NamedTensors averages = Alignment::dropped(with_prefix("ema.", checkpoint.state));
    if (!averages.empty()) copy_strictly(folder, averages, unique_parameters(*run.model));
  }
  run.model->eval();
  return run;
}

LoadedRun load_run(const std::string& folder, const std::vector<std::string>& overrides,
                   const std::string& weights) {
  return load_run(folder, overrides, weights, tasks::task_names(), train::make_task);
}

}  // namespace headloom::train

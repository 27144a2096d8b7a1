#include "headloom/train/initial.h"

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <map>
#include <set>

#include "headloom/base/check.h"
#include "headloom/base/nearest.h"
#include "headloom/train/alignment.h"
#include "headloom/train/checkpoint.h"
#include "headloom/train/weights.h"

namespace headloom::train {
namespace {

namespace fs = std::filesystem;

NamedTensors weights_of_run(const std::string& folder) {
  const CheckpointFolder checkpoints(folder + "/checkpoints");
  std::vector<std::string> warnings;
  std::optional<Checkpoint> checkpoint;
  if (checkpoints.has_best()) {
    checkpoint = checkpoints.load_best();
  } else {
    checkpoint = checkpoints.load_newest(warnings);
  }
  for (const std::string& warning : warnings) std::cerr << "warning: " << warning << '\n';
  HEADLOOM_CHECK(checkpoint, folder, "a run folder with a checkpoint", "none",
                 "model.initial names a run, or a safetensors file.");
  std::map<std::string, at::Tensor> averages;
  for (const auto& [name, tensor] : with_prefix("ema.", checkpoint->state)) {
    averages.emplace(name, tensor);
  }
  NamedTensors weights;
  for (const auto& [name, tensor] : Alignment::dropped(checkpoint->model)) {
    const auto average = averages.find(name);
    weights.emplace_back(name, average == averages.end() ? tensor : average->second);
  }
  const std::string pooler = folder + '/' + kPoolerFile;
  if (fs::exists(pooler)) {
    for (const auto& entry : read_safetensors(pooler).tensors) weights.push_back(entry);
  }
  return weights;
}

// Whether both are the table of one formula, of different lengths: sinusoidal positions of another
// max_length. The model's own is right then.
bool is_same_table(const at::Tensor& own, const at::Tensor& given) {
  if (own.requires_grad() || own.dim() != 2 || given.dim() != 2 || own.size(1) != given.size(1) ||
      own.scalar_type() != given.scalar_type()) {
    return false;
  }
  const int64_t rows = std::min(own.size(0), given.size(0));
  return at::equal(own.narrow(0, 0, rows), given.narrow(0, 0, rows));
}

std::string form(const at::Tensor& tensor) {
  return cat(tensor.scalar_type(), ' ', tensor.sizes());
}

}  // namespace

std::string initial_path(const Recipe& recipe) {
  if (recipe.initial.empty()) return "";
  return (fs::path(recipe.base_folder) / recipe.initial).lexically_normal().string();
}

NamedTensors initial_weights(const std::string& path) {
  if (fs::is_directory(path)) return weights_of_run(path);
  HEADLOOM_CHECK(fs::is_regular_file(path), path, "a run folder or a safetensors file",
                 "no such file", "model.initial starts at the folder of the recipe.");
  return read_safetensors(path).tensors;
}

std::string InitialReport::text(const std::string& path) const {
  std::string line = cat("first weights: ", loaded.size(), " tensors of ", path);
  if (!fresh.empty()) line += cat("; drawn: ", join(fresh));
  if (!unused.empty()) line += cat("; left out: ", join(unused));
  return line;
}

InitialReport load_initial(const std::string& path, torch::nn::Module& model) {
  const NamedTensors weights = initial_weights(path);
  const std::map<std::string, at::Tensor> given(weights.begin(), weights.end());
  InitialReport report;
  std::vector<std::string> problems;
  std::vector<std::pair<at::Tensor, at::Tensor>> copies;  // to, from
  std::set<std::string> names;
  for (const auto& [name, target] : model_entries(model)) {
    names.insert(name);
    const auto found = given.find(name);
    if (found == given.end()) {
      report.fresh.push_back(name);
    } else if (is_same_table(target, found->second)) {
      report.loaded.push_back(name);
    } else if (form(found->second) != form(target)) {
      problems.push_back(cat(name, " is ", form(found->second), " instead of ", form(target)));
    } else {
      report.loaded.push_back(name);
      copies.emplace_back(target, found->second);
    }
  }
  for (const auto& [name, tensor] : weights) {
    if (names.count(name) == 0) report.unused.push_back(name);
  }
  HEADLOOM_CHECK(problems.empty(), path, "tensors of the shapes of this model",
                 join(problems, "; "),
                 "Give [model] and task.vocabulary the values of the run that "
                 "the weights are of.");
  HEADLOOM_CHECK(!report.loaded.empty(), path, cat("tensors of this model, e.g. ", *names.begin()),
                 weights.empty() ? "none" : cat("others, e.g. ", weights.front().first));
  const at::NoGradGuard no_grad;
  for (const auto& [to, from] : copies) at::Tensor(to).copy_(from);
  return report;
}

}  // namespace headloom::train

#include "headloom/train/average.h"

#include <ATen/ATen.h>

#include <filesystem>
#include <map>

#include "headloom/base/check.h"
#include "headloom/base/nearest.h"
#include "headloom/train/checkpoint.h"
#include "headloom/train/weights.h"

namespace headloom::train {
namespace {

namespace fs = std::filesystem;

// A checkpoint folder or a file, as a user names it.
std::string find_checkpoint(const std::string& folder, const std::string& name) {
  for (const std::string& path : {name, folder + "/checkpoints/" + name}) {
    if (fs::exists(path)) return path;
  }
  std::vector<std::string> there = CheckpointFolder(folder + "/checkpoints").steps();
  const std::string nearest = nearest_name(name, there);
  fail(folder,
       cat("a checkpoint or a file of weights: ", there.empty() ? "none here" : join(there)),
       cat('"', name, '"'), nearest.empty() ? "" : cat("Did you mean \"", nearest, "\"?"));
}

NamedTensors read_weights(const std::string& path) {
  if (!fs::is_directory(path)) return read_safetensors(path).tensors;
  return CheckpointFolder::load(path).model;
}

std::vector<std::string> newest(const std::string& folder, int64_t count) {
  std::vector<std::string> names = CheckpointFolder(folder + "/checkpoints").steps();
  HEADLOOM_CHECK(count >= 1 && static_cast<int64_t>(names.size()) >= count, folder,
                 cat("at least ", count, " checkpoints to average"), cat(names.size()),
                 "Train with a larger train.keep, or average fewer.");
  names.erase(names.begin(), names.end() - count);
  std::vector<std::string> paths;
  for (const std::string& name : names) paths.push_back(folder + "/checkpoints/" + name);
  return paths;
}

}  // namespace

NamedTensors average_weights(const std::vector<NamedTensors>& weights,
                             const std::vector<std::string>& names) {
  HEADLOOM_CHECK(!weights.empty(), "average", "at least one checkpoint", "none");
  NamedTensors sums, averages;
  for (const auto& [name, tensor] : weights.back()) {
    sums.emplace_back(name,
                      tensor.is_floating_point() ? at::zeros_like(tensor, at::kDouble) : tensor);
  }
  for (size_t i = 0; i < weights.size(); ++i) {
    NamedTensors same;  // what must agree, in forms of the last
    for (const auto& [name, tensor] : weights.back())
      same.emplace_back(name, at::empty_like(tensor));
    copy_strictly(names[i], weights[i], same);
    for (size_t t = 0; t < sums.size(); ++t) {
      if (same[t].second.is_floating_point()) sums[t].second.add_(same[t].second);
    }
  }
  for (size_t t = 0; t < sums.size(); ++t) {
    const at::Tensor& last = weights.back()[t].second;
    const at::Tensor mean =
        last.is_floating_point()
            ? (sums[t].second / static_cast<double>(weights.size())).to(last.scalar_type())
            : last;
    averages.emplace_back(sums[t].first, mean);
  }
  return averages;
}

Averaged average_run(const std::string& folder, const AverageOptions& options) {
  HEADLOOM_CHECK(fs::is_directory(folder), folder, "a run folder", "no such folder");
  Averaged result;
  result.output = options.output.empty() ? folder + "/average.safetensors" : options.output;
  if (options.checkpoints.empty()) {
    result.checkpoints = newest(folder, options.last);
  } else {
    for (const std::string& name : options.checkpoints) {
      result.checkpoints.push_back(find_checkpoint(folder, name));
    }
  }
  std::vector<NamedTensors> weights;
  for (const std::string& path : result.checkpoints) weights.push_back(read_weights(path));
  const NamedTensors averages = average_weights(weights, result.checkpoints);
  for (const auto& [name, tensor] : averages) result.parameters += tensor.numel();
  write_safetensors(result.output, averages, {{"average_of", join(result.checkpoints)}});
  return result;
}

}  // namespace headloom::train

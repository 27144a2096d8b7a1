#include "headloom/train/weights.h"

#include <map>
#include <set>

#include "headloom/base/check.h"
#include "headloom/base/nearest.h"

namespace headloom::train {
namespace {

constexpr size_t kShownProblems = 8;

std::string form(const at::Tensor& tensor) {
  return cat(tensor.scalar_type(), ' ', tensor.sizes());
}

template <class Entries>
void append_unique(const Entries& entries, std::set<const void*>& seen, NamedTensors& tensors) {
  for (const auto& entry : entries) {
    if (!entry.value().defined()) continue;
    if (seen.insert(entry.value().unsafeGetTensorImpl()).second) {
      tensors.emplace_back(entry.key(), entry.value());
    }
  }
}

}  // namespace

NamedTensors model_entries(const torch::nn::Module& model) {
  NamedTensors tensors;
  std::set<const void*> seen;
  append_unique(model.named_parameters(), seen, tensors);
  append_unique(model.named_buffers(), seen, tensors);
  return tensors;
}

NamedTensors unique_parameters(const torch::nn::Module& model) {
  NamedTensors tensors;
  std::set<const void*> seen;
  append_unique(model.named_parameters(), seen, tensors);
  return tensors;
}

int64_t count_parameters(const torch::nn::Module& model) {
  int64_t count = 0;
  for (const auto& [name, tensor] : unique_parameters(model)) count += tensor.numel();
  return count;
}

NamedTensors model_tensors(const torch::nn::Module& model) {
  NamedTensors tensors;
  for (const auto& [name, tensor] : model_entries(model)) {
    tensors.emplace_back(name, tensor.detach().to(at::kCPU).contiguous());
  }
  return tensors;
}

void copy_strictly(const std::string& where, const NamedTensors& tensors,
                   const NamedTensors& targets) {
  std::map<std::string, at::Tensor> sources(tensors.begin(), tensors.end());
  std::vector<std::string> problems, names;
  for (const auto& [name, target] : targets) {
    names.push_back(name);
    const auto found = sources.find(name);
    if (found == sources.end()) {
      problems.push_back(name + " is missing");
    } else if (form(found->second) != form(target)) {
      problems.push_back(cat(name, " is ", form(found->second), " instead of ", form(target)));
    }
  }
  for (const auto& [name, target] : targets) sources.erase(name);
  for (const auto& [name, tensor] : sources) {
    const std::string nearest = nearest_name(name, names);
    problems.push_back(
        cat(name, " is not of this model", nearest.empty() ? "" : ", nearest " + nearest));
  }
  if (!problems.empty()) {
    const size_t count = problems.size();
    if (count > kShownProblems) {
      problems.resize(kShownProblems);
      problems.push_back(cat("and ", count - kShownProblems, " more"));
    }
    fail(where, "the tensors of this model, by name and shape", join(problems, "; "),
         "Is the recipe the one that the weights were trained with?");
  }
  at::NoGradGuard no_grad;
  const std::map<std::string, at::Tensor> all(tensors.begin(), tensors.end());
  for (const auto& [name, target] : targets) at::Tensor(target).copy_(all.at(name));
}

void load_weights(const std::string& where, const NamedTensors& tensors, torch::nn::Module& model) {
  copy_strictly(where, tensors, model_entries(model));
}

NamedTensors with_prefix(const std::string& prefix, const NamedTensors& tensors) {
  NamedTensors chosen;
  for (const auto& [name, tensor] : tensors) {
    if (name.rfind(prefix, 0) == 0) chosen.emplace_back(name.substr(prefix.size()), tensor);
  }
  return chosen;
}

NamedTensors under_prefix(const std::string& prefix, const NamedTensors& tensors) {
  NamedTensors renamed;
  for (const auto& [name, tensor] : tensors) renamed.emplace_back(prefix + name, tensor);
  return renamed;
}

}  // namespace headloom::train

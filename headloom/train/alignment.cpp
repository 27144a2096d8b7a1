#include "headloom/train/alignment.h"

#include "headloom/base/check.h"

namespace headloom::train {
namespace {

const char* const kName = "alignment";
const char* const kPrefix = "alignment.";

std::vector<QueryKeySource*> sources_of(const torch::nn::Module& model) {
  std::vector<QueryKeySource*> sources;
  for (const auto& module : model.modules(/*include_self=*/false)) {
    if (auto* source = dynamic_cast<QueryKeySource*>(module.get())) sources.push_back(source);
  }
  return sources;
}

}  // namespace

void Alignment::attach(const AlignmentConfig& config, torch::nn::Module& model) {
  if (config.form == "none") return;
  std::vector<int64_t> widths;
  for (QueryKeySource* source : sources_of(model)) {
    source->record(true);
    widths.push_back(source->query_width());
  }
  HEADLOOM_CHECK(!widths.empty(), "alignment.form",
                 "a model whose layers have queries and keys, such as dot_product's",
                 "none in this model", "Use alignment.form = \"none\".");
  model.register_module(kName, std::make_shared<AlignmentObjective>(config, widths));
}

NamedTensors Alignment::dropped(const NamedTensors& tensors) {
  NamedTensors kept;
  for (const auto& entry : tensors) {
    if (entry.first.rfind(kPrefix, 0) != 0) kept.push_back(entry);
  }
  return kept;
}

Alignment::Alignment(const torch::nn::Module& model) {
  const auto children = model.named_children();
  if (const auto* found = children.find(kName)) {
    objective_ = std::dynamic_pointer_cast<AlignmentObjective>(*found);
    sources_ = sources_of(model);
  }
}

at::Tensor Alignment::weighted(int64_t step) {
  std::vector<std::vector<QueryKeys>> passes;
  for (QueryKeySource* source : sources_) passes.push_back(source->take_passes());
  return objective_->weight(step) * objective_->forward(passes);
}

}  // namespace headloom::train

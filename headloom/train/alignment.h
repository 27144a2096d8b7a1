#pragma once

#include <memory>
#include <vector>

#include "headloom/mechanisms/alignment/alignment_objective.h"
#include "headloom/train/safetensors.h"

namespace headloom::train {

// The objective of a recipe's [alignment] on a model's queries and keys. It lives in the model as
// the submodule "alignment" while the model trains, so that optimizer, checkpoints and averages
// treat its parameters like any other; a model that is loaded to be used has none of it.
class Alignment {
 public:
  // Builds the objective for the layers of a model that has queries and keys; does nothing when the
  // form is "none". Error when no layer has any.
  static void attach(const AlignmentConfig& config, torch::nn::Module& model);
  // Tensors of a checkpoint without the objective's.
  static NamedTensors dropped(const NamedTensors& tensors);

  // What attach() left in the model; empty when it did nothing.
  explicit Alignment(const torch::nn::Module& model);
  explicit operator bool() const { return objective_ != nullptr; }

  // The weighted objective of the passes since the last call, at a step counted from 1.
  at::Tensor weighted(int64_t step);

 private:
  std::shared_ptr<AlignmentObjective> objective_;
  std::vector<QueryKeySource*> sources_;
};

}  // namespace headloom::train

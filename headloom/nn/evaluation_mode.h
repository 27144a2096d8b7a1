#pragma once

#include <torch/nn/module.h>

#include <utility>
#include <vector>

namespace headloom::nn {

// Evaluation mode while it lives. Submodules may be in different modes, so each is remembered. A
// model that is in evaluation mode already is not touched, so that several threads may use it.
class EvaluationMode {
 public:
  explicit EvaluationMode(torch::nn::Module& model) {
    bool any = false;
    model.apply([&](torch::nn::Module& part) {
      modes_.emplace_back(&part, part.is_training());
      any = any || part.is_training();
    });
    if (any) {
      model.eval();
    } else {
      modes_.clear();
    }
  }
  // train() is recursive and apply() visits parents first, so the innermost has the last word.
  ~EvaluationMode() {
    for (const auto& [part, training] : modes_) part->train(training);
  }
  EvaluationMode(const EvaluationMode&) = delete;
  EvaluationMode& operator=(const EvaluationMode&) = delete;

 private:
  std::vector<std::pair<torch::nn::Module*, bool>> modes_;
};

}  // namespace headloom::nn

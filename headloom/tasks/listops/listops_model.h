#pragma once

#include <torch/nn/modules/linear.h>

#include "headloom/tasks/task.h"

namespace headloom::tasks::listops {

enum class Pooling {
  kClass,  // a learned vector, zero at first, goes in front of the sequence and is read out
  kMean,   // the mean over all tokens that are not padding
};

// Encoder, pooling, and the head Linear(C, ffn) - ReLU - Linear(ffn, 10): the Long Range Arena's
// classifier. The learned vector is row kClass of the embedding, so the sequence is one longer.
class ListOpsModel : public Model {
 public:
  ListOpsModel(nn::TransformerConfig config, Pooling pooling);
  at::Tensor forward(const Batch& batch) override;  // [B, T] -> [B, 10]
  double flops(int64_t length) const override;

 private:
  at::Tensor pool(const Batch& batch) const;

  Pooling pooling_;
  std::shared_ptr<nn::Transformer> encoder_;
  torch::nn::Linear head_in_{nullptr}, head_out_{nullptr};
};

}  // namespace headloom::tasks::listops

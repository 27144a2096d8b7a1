#pragma once

#include "headloom/mechanisms/linear.h"
#include "headloom/tasks/pooling.h"
#include "headloom/tasks/task.h"

namespace headloom::tasks::retrieval {

// Two towers that are one encoder, and a head of both pooled vectors a and b: Linear(ffn) - ReLU -
// Linear(ffn / 2) - ReLU - Linear(2) of [a, b], or of [a, b, a b, a - b] with `interactions`.
// Parameters encoder.*, head_in.*, head_middle.*, head_out.*.
class RetrievalModel : public Model {
 public:
  RetrievalModel(nn::TransformerConfig config, int64_t vocabulary, Pooling pooling,
                 bool interactions);
  at::Tensor forward(const Batch& batch) override;  // [2 B, T], first and second texts -> [B, 2]
  double flops(int64_t length) const override;      // of one pair

 private:
  Pooling pooling_;
  bool interactions_;
  std::shared_ptr<nn::Transformer> encoder_;
  Linear head_in_{nullptr}, head_middle_{nullptr}, head_out_{nullptr};
};

}  // namespace headloom::tasks::retrieval

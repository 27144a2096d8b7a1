#pragma once

#include "headloom/mechanisms/linear.h"
#include "headloom/tasks/pooling.h"
#include "headloom/tasks/task.h"

namespace headloom::tasks {

// The Long Range Arena's classifier (Tay et al., 2021): encoder, pooling, and the head Linear(C,
// ffn) - ReLU - Linear(ffn, classes). Parameters encoder.*, head_in.*, head_out.*. With the pooling
// kClass the embedding has a row more, and the sequence is one longer.
class SequenceClassifier : public Model {
 public:
  SequenceClassifier(nn::TransformerConfig config, int64_t vocabulary, int64_t classes,
                     Pooling pooling);
  at::Tensor forward(const Batch& batch) override;  // [B, T] -> [B, classes]
  double flops(int64_t length) const override;

 private:
  int64_t classes_;
  Pooling pooling_;
  std::shared_ptr<nn::Transformer> encoder_;
  Linear head_in_{nullptr}, head_out_{nullptr};
};

// A bidirectional encoder for `pooling`, whose learned vector starts at zero.
std::shared_ptr<nn::Transformer> make_encoder(nn::TransformerConfig config, int64_t vocabulary,
                                              Pooling pooling);

}  // namespace headloom::tasks

#pragma once

#include "headloom/mechanisms/linear.h"
#include "headloom/tasks/pooling.h"
#include "headloom/tasks/task.h"

namespace headloom::tasks::classification {

// A bidirectional Transformer, and of the pooled vector BERT's head (Devlin et al., 2019):
// dropout(tanh(x W + b)) U + c. Pooling is kFirst, the tokenizer's begin token, or kMean.
// Parameters encoder.*, pooler.*, classifier.*.
class ClassificationModel : public Model {
 public:
  ClassificationModel(nn::TransformerConfig config, int64_t classes, Pooling pooling);
  at::Tensor forward(const Batch& batch) override;  // [B, T] -> [B, classes]
  double flops(int64_t length) const override;
  // Rows of the embedding [B, T, C] in the place of tokens, without padding.
  at::Tensor forward_rows(const at::Tensor& rows);
  const at::Tensor& embedding() const { return encoder_->embedding()->weight; }  // [V, C]

 private:
  // hidden [B, T, C], padding [B, T] or undefined -> [B, classes]
  at::Tensor classify(const at::Tensor& hidden, const at::Tensor& padding);

  int64_t classes_;
  Pooling pooling_;
  double dropout_;
  std::shared_ptr<nn::Transformer> encoder_;
  Linear pooler_{nullptr}, classifier_{nullptr};
};

}  // namespace headloom::tasks::classification

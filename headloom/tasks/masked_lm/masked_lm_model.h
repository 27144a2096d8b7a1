#pragma once

#include "headloom/mechanisms/linear.h"
#include "headloom/tasks/task.h"

// B batch, T tokens, M tokens to predict, C model width, V vocabulary.
namespace headloom::tasks::masked_lm {

// A bidirectional Transformer and BERT's head (Devlin et al., 2019): norm(gelu(x W + b)) E^T + c
// with the embedding E, or with output.weight [V, C] when untied. Parameters encoder.*, dense.*,
// norm.*, bias [V], and output.weight.
class MaskedLanguageModel : public Model {
 public:
  // `share` of the tokens is predicted, for operation counts.
  MaskedLanguageModel(nn::TransformerConfig config, bool tie_embedding, double share);

  // Only where there is something to predict, in the order of the rows: [M, V]. Without targets,
  // everywhere: [B, T, V].
  at::Tensor forward(const Batch& batch) override;
  double flops(int64_t length) const override;

 private:
  at::Tensor head(const at::Tensor& hidden);  // [..., C] -> [..., V]

  double share_;
  std::shared_ptr<nn::Transformer> encoder_;
  Linear dense_{nullptr}, output_{nullptr};
  nn::Norm norm_{nullptr};
  at::Tensor bias_;
};

}  // namespace headloom::tasks::masked_lm

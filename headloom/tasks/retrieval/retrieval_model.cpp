#include "headloom/tasks/retrieval/retrieval_model.h"

#include <ATen/ATen.h>

#include "headloom/tasks/sequence_classifier.h"

// B pairs, T tokens, C model width.
namespace headloom::tasks::retrieval {

using at::Tensor;

RetrievalModel::RetrievalModel(nn::TransformerConfig config, int64_t vocabulary, Pooling pooling,
                               bool interactions)
    : pooling_(pooling), interactions_(interactions) {
  const int64_t inputs = (interactions ? 4 : 2) * config.dim, half = config.ffn / 2;
  encoder_ = register_module("encoder", make_encoder(config, vocabulary, pooling));
  head_in_ = register_module("head_in", Linear(inputs, config.ffn));
  head_middle_ = register_module("head_middle", Linear(config.ffn, half));
  head_out_ = register_module("head_out", Linear(half, 2));
}

Tensor RetrievalModel::forward(const Batch& batch) {
  const Tensor pooled = encode_pooled(*encoder_, batch.tokens, batch.masks, pooling_);  // [2 B, C]
  const std::vector<Tensor> texts = pooled.chunk(2);
  std::vector<Tensor> parts = texts;
  if (interactions_) {
    parts.push_back(texts[0] * texts[1]);
    parts.push_back(texts[0] - texts[1]);
  }
  const Tensor hidden = at::relu(head_in_(at::cat(parts, 1)));
  return head_out_(at::relu(head_middle_(hidden)));
}

double RetrievalModel::flops(int64_t length) const {
  double head = 0.0;
  for (const auto& layer : {head_in_, head_middle_, head_out_}) {
    head += 2.0 * static_cast<double>(layer->weight.numel());
  }
  return 2.0 * encoder_->flops(length + class_vectors(pooling_)) + head;
}

}  // namespace headloom::tasks::retrieval

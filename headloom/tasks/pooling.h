#pragma once

#include <string>

#include "headloom/base/options.h"
#include "headloom/nn/transformer.h"

// B batch, T tokens, C model width.
namespace headloom::tasks {

enum class Pooling {
  kClass,    // a learned vector, zero at first, goes in front of the sequence and is read out
  kFirst,    // the first token
  kMean,     // the mean over all tokens that are not padding
  kMeanAll,  // the mean over all positions, masked ones too
};

// hidden [B, T, C], padding [B, T] or undefined -> [B, C]
at::Tensor mean_of_tokens(const at::Tensor& hidden, const at::Tensor& padding);

// One vector a sequence: tokens [B, T] -> [B, C]. The learned vector of kClass is the last row of
// the encoder's embedding.
at::Tensor encode_pooled(nn::Transformer& encoder, const at::Tensor& tokens, const Masks& masks,
                         Pooling pooling);

// Rows of the embedding, and tokens of the encoder, that the pooling adds.
inline int64_t class_vectors(Pooling pooling) {
  return pooling == Pooling::kClass ? 1 : 0;
}

}  // namespace headloom::tasks

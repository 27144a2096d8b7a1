#include "headloom/tasks/task.h"

namespace headloom::tasks {
namespace {

at::Tensor moved(const at::Tensor& tensor, at::Device device) {
  return tensor.defined() ? tensor.to(device) : tensor;
}

}  // namespace

Batch Batch::to(at::Device device) const {
  Batch batch = *this;
  batch.tokens = moved(tokens, device);
  batch.targets = moved(targets, device);
  batch.decoder_tokens = moved(decoder_tokens, device);
  batch.choices = moved(choices, device);
  batch.segments = moved(segments, device);
  batch.masks.key_padding_mask = moved(masks.key_padding_mask, device);
  batch.masks.cu_seqlens = moved(masks.cu_seqlens, device);
  return batch;
}

}  // namespace headloom::tasks

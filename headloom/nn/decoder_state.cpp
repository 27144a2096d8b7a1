#include "headloom/nn/decoder_state.h"

#include <ATen/ATen.h>

#include "headloom/base/check.h"

namespace headloom::nn {

using at::Tensor;

void DecoderState::check_index(const Tensor& index) const {
  HEADLOOM_CHECK(index.defined() && index.dim() == 1 && index.scalar_type() == at::kLong,
                 "decoder state", "index of shape [B'] and dtype int64",
                 index.defined() ? cat("shape ", index.sizes(), ", ", index.scalar_type())
                                 : std::string("none"));
  if (index.numel() > 0 && index.device().is_cpu()) {
    const auto [low, high] = index.aminmax();
    HEADLOOM_CHECK(low.item<int64_t>() >= 0 && high.item<int64_t>() < batch, "decoder state",
                   cat("rows in [0, ", batch, ")"),
                   cat("rows from ", low.item<int64_t>(), " to ", high.item<int64_t>()));
  }
}

void DecoderState::reorder(const Tensor& index) {
  check_index(index);
  for (const auto& layer : layers) layer->reorder(index);
  for (const auto& memory : memories) memory->reorder(index);
  batch = index.size(0);
}

void DecoderState::reorder_within(const Tensor& index) {
  check_index(index);
  HEADLOOM_CHECK(index.size(0) == batch, "decoder state", cat("an index of ", batch, " rows"),
                 cat("shape ", index.sizes()));
  for (const auto& layer : layers) layer->reorder(index);
}

int64_t DecoderState::bytes() const {
  int64_t total = 0;
  for (const auto& layer : layers) total += layer->bytes();
  for (const auto& memory : memories) total += memory->bytes();
  return total;
}

}  // namespace headloom::nn

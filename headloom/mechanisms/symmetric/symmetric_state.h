#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "headloom/mechanisms/token_mixer.h"

namespace headloom {

// Tensors [B, heads, capacity, width] that grow along time; the capacity doubles, so that a step
// writes in place.
class SymmetricState : public MixerState {
 public:
  // padding_mask [B, S], or undefined: of a memory that all steps see.
  explicit SymmetricState(size_t tensors, const at::Tensor& padding_mask = {})
      : kept_(tensors), padding_mask_(padding_mask) {}

  // One [B, heads, n, width] for each tensor.
  void append(const std::vector<at::Tensor>& pieces);
  at::Tensor kept(size_t i) const { return kept_[i].narrow(2, 0, length_); }

  const at::Tensor& padding_mask() const { return padding_mask_; }

  void reorder(const at::Tensor& index) override;
  int64_t length() const override { return length_; }
  int64_t bytes() const override;

 private:
  std::vector<at::Tensor> kept_;
  at::Tensor padding_mask_;
  int64_t length_ = 0;
};

}  // namespace headloom

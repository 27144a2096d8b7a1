#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "headloom/mechanisms/token_mixer.h"

namespace headloom {

// Tensors [B, heads, capacity, width] that grow along time; the capacity doubles, so that a step
// writes in place.
class SymmetricState : public MixerState {
 public:
  explicit SymmetricState(size_t tensors) : kept_(tensors) {}

  // One [B, heads, n, width] for each tensor.
  void append(const std::vector<at::Tensor>& pieces);
  at::Tensor kept(size_t i) const { return kept_[i].narrow(2, 0, length_); }

  void reorder(const at::Tensor& index) override;
  int64_t length() const override { return length_; }
  int64_t bytes() const override;

 private:
  std::vector<at::Tensor> kept_;
  int64_t length_ = 0;
};

}  // namespace headloom

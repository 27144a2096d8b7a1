#pragma once

#include <memory>
#include <vector>

#include "headloom/mechanisms/token_mixer.h"

namespace headloom::nn {

// The states of all blocks and the position reached.
struct DecoderState {
  std::vector<std::unique_ptr<MixerState>> layers;
  std::vector<std::unique_ptr<MixerState>> memories;  // of the cross mixers; empty without them
  int64_t batch = 0;                                  // rows
  int64_t position = 0;                               // tokens seen

  // Beam search: row i continues as row index[i] did. index [B'] int64, values in [0, batch);
  // B' may differ from B.
  void reorder(const at::Tensor& index);
  // The same for as many rows, when rows i and index[i] look at the same memory (two hypotheses of
  // one sentence): memories stay where they are.
  void reorder_within(const at::Tensor& index);
  int64_t bytes() const;  // memory held

 private:
  void check_index(const at::Tensor& index) const;
};

}  // namespace headloom::nn

#include "headloom/mechanisms/token_mixer.h"

#include <ATen/ATen.h>

#include "headloom/base/check.h"

namespace headloom {
namespace {

using at::Tensor;

class MemoryState : public MixerState {
 public:
  MemoryState(const Tensor& memory, const Tensor& padding_mask)
      : memory(memory), padding_mask(padding_mask) {}
  void reorder(const Tensor& index) override {
    memory = memory.index_select(0, index);
    if (padding_mask.defined()) padding_mask = padding_mask.index_select(0, index);
  }
  int64_t length() const override { return memory.size(1); }
  int64_t bytes() const override {
    return static_cast<int64_t>(memory.nbytes() +
                                (padding_mask.defined() ? padding_mask.nbytes() : 0));
  }

  Tensor memory, padding_mask;  // [B, S, C], [B, S] or undefined
};

}  // namespace

Tensor TokenMixer::cross(const Tensor&, const Tensor&, const Tensor&) {
  fail(cat("mixer ", mechanism), "a mechanism with a cross form",
       "a mechanism that mixes one sequence only", "Use dot_product for cross attention.");
}

std::unique_ptr<MixerState> TokenMixer::new_cross_state(const Tensor& memory,
                                                        const Tensor& memory_padding_mask) {
  return std::make_unique<MemoryState>(memory, memory_padding_mask);
}

Tensor TokenMixer::cross_step(const Tensor& x, const MixerState& state) {
  const auto* seen = dynamic_cast<const MemoryState*>(&state);
  HEADLOOM_CHECK(seen, cat("mixer ", mechanism), "a state of its own new_cross_state()",
                 "another mixer's state");
  return cross(x, seen->memory, seen->padding_mask);
}

}  // namespace headloom

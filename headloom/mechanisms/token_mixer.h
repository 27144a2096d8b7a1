#pragma once

#include <torch/nn/module.h>

#include <memory>
#include <string>

namespace headloom {

// B batch, T tokens, n new tokens, S memory tokens, C model width.

// What a batch says about its tokens. Undefined tensors mean: nothing to say.
struct Masks {
  at::Tensor key_padding_mask;  // [B, T] bool, true where a position is padding
  at::Tensor cu_seqlens;  // [sequences + 1] int64: several sequences packed along T, with B = 1
};

// What a mixer must remember between decoding steps.
class MixerState {
 public:
  virtual ~MixerState() = default;
  // Row i of the batch continues as row index[i] did: beam search. index [B'] int64.
  virtual void reorder(const at::Tensor& index) = 0;
  virtual int64_t length() const = 0;  // tokens seen
  virtual int64_t bytes() const = 0;   // memory held
};

// The part of a Transformer block that moves information between positions. Every mechanism
// provides one, under its name in the registry.
class TokenMixer : public torch::nn::Module {
 public:
  // x [B, T, C] -> [B, T, C]
  virtual at::Tensor forward(const at::Tensor& x, const Masks& masks) = 0;

  // Queries from x [B, T, C], keys and values from memory [B, S, C]; memory_padding_mask [B, S] or
  // undefined -> [B, T, C]. Refused by name unless the mechanism has a cross form.
  virtual at::Tensor cross(const at::Tensor& x, const at::Tensor& memory,
                           const at::Tensor& memory_padding_mask);

  // Cross mixing step by step: what it needs of a memory is worked out once. By default the state
  // is the memory itself and a step is cross(); a mechanism overrides both to keep what it makes of
  // the memory, such as keys and values. The state's length() is S.
  virtual std::unique_ptr<MixerState> new_cross_state(const at::Tensor& memory,
                                                      const at::Tensor& memory_padding_mask);
  // x [B, n, C] -> [B, n, C]; leaves the state as it is.
  virtual at::Tensor cross_step(const at::Tensor& x, const MixerState& state);

  // Causal mixers decode: step() on successive pieces of a sequence equals forward() on the whole.
  // new_state() is refused by name when the mixer is not causal.
  virtual std::unique_ptr<MixerState> new_state(int64_t batch) const = 0;
  // x [B, n, C], n >= 1 -> [B, n, C]
  virtual at::Tensor step(const at::Tensor& x, MixerState& state) = 0;

  // Multiply-adds of one forward pass over a sequence of `length`, counted as two operations each.
  virtual double flops(int64_t length) const = 0;

  // Its name in the registry, for messages; make_mixer() sets it.
  std::string mechanism = "mixer";
};

}  // namespace headloom

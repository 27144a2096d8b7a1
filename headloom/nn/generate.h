#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "headloom/nn/language_model.h"

namespace headloom::nn {

struct SamplingOptions {
  // 0 is greedy: the most probable token, the smallest id among equals.
  double temperature = 1.0;
  // Keep only the k most probable tokens; 0 keeps all.
  int64_t top_k = 0;
  // Keep the smallest set of most probable tokens whose probability reaches p; 1 keeps all.
  double top_p = 1.0;
  uint64_t seed = 0;  // of this call alone; torch's generator is left untouched
};

// One token for each row: logits [B, V] -> [B] int64 on the device of the logits. Filters apply in
// the order temperature, top_k, top_p, each to the renormalised rest; equal probabilities rank by
// token id, smallest first. `draw` counts the draws of this seed: draw number n of row b is a
// function of (seed, n, b), whatever the batch. Computed in float64 on the processor. Refuses
// temperature < 0, top_k < 0, top_p outside (0, 1], and a row that is not a distribution (NaN,
// +inf, or -inf throughout).
at::Tensor sample(const at::Tensor& logits, const SamplingOptions& options, int64_t draw);

// Continues prompts [B, T], T >= 1, by `length` tokens through the incremental state: [B, T +
// length]. `on_token` sees each new column [B] as it is made and stops the generation by returning
// false; the result then ends with that column. Runs in evaluation mode without gradients and
// restores the mode of every submodule. A model holds max_length tokens: when they are used up, the
// text goes on from its newest max_length / 2. Refuses an empty prompt.
at::Tensor generate(LanguageModel& model, const at::Tensor& prompts, int64_t length,
                    const SamplingOptions& options,
                    const std::function<bool(const at::Tensor&)>& on_token = {});

}  // namespace headloom::nn

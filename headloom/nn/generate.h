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

// One token for each row: logits [B, V] -> [B] int64. `draw` counts the draws of this seed, so that
// draw number n of row b is a function of (seed, n, b). Filters apply in the order temperature,
// top_k, top_p.
at::Tensor sample(const at::Tensor& logits, const SamplingOptions& options, int64_t draw);

// Continues prompts [B, T], T >= 1, by `length` tokens through the incremental state: [B, T +
// length]. `on_token` sees each new column [B] as it is made and stops the generation by returning
// false.
at::Tensor generate(LanguageModel& model, const at::Tensor& prompts, int64_t length,
                    const SamplingOptions& options,
                    const std::function<bool(const at::Tensor&)>& on_token = {});

}  // namespace headloom::nn

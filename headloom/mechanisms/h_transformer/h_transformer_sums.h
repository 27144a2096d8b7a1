#pragma once

#include <ATen/ATen.h>

namespace headloom {

// Weighted sums of values over disjoint sets of keys, each query's weights relative to
// exp(maximum), which has no gradient. Nothing seen: weight and value 0.
struct HAttentionSums {
  at::Tensor maximum, weight, value;  // [B, H, T, 1], [B, H, T, 1], [B, H, T, E]

  void add(const HAttentionSums& more) {
    const at::Tensor next = at::maximum(maximum, more.maximum);
    const at::Tensor old_factor = (maximum - next).exp();
    const at::Tensor new_factor = (more.maximum - next).exp();
    weight = weight * old_factor + more.weight * new_factor;
    value = value * old_factor + more.value * new_factor;
    maximum = next;
  }

  HAttentionSums rows(int64_t begin, int64_t count) const {
    return {maximum.narrow(2, begin, count), weight.narrow(2, begin, count),
            value.narrow(2, begin, count)};
  }
};

}  // namespace headloom

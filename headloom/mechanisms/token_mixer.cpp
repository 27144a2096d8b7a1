#include "headloom/mechanisms/token_mixer.h"

#include "headloom/base/check.h"

namespace headloom {

at::Tensor TokenMixer::cross(const at::Tensor&, const at::Tensor&, const at::Tensor&) {
  fail(cat("mixer ", mechanism), "a mechanism with a cross form",
       "a mechanism that mixes one sequence only", "Use dot_product for cross attention.");
}

}  // namespace headloom

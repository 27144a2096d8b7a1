#pragma once

#include "headloom/nn/generate.h"

namespace headloom::nn {

// The refusals of sample() that depend on the options alone, so that generate() meets them before
// any work.
void check_sampling(const SamplingOptions& options);

}  // namespace headloom::nn

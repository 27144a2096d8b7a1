#pragma once

#include "headloom/mechanisms/alignment/transport_kernels.h"

namespace headloom {

// Runs a pass over all heads on the threads of parallel_for, with the kernels of active_isa().
// Chooses splits from the sizes alone, so that results do not depend on the number of threads.
// Instantiated for double, float, BFloat16 and Half.
template <class S>
void transport_forward(const kernels::TransportArgs<S>& args, int64_t batch);
template <class S>
void transport_backward(const kernels::TransportArgs<S>& args, int64_t batch);

}  // namespace headloom

#pragma once

#include <cstdint>
#include <functional>

namespace headloom::testing {

// The most bytes that a call holds at once beyond what was held before it: the larger of what torch
// allocates on this thread and what the process gains in resident memory, which also sees buffers
// that do not come from torch. Good to some MiB.
int64_t peak_extra_bytes(const std::function<void()>& call);

}  // namespace headloom::testing

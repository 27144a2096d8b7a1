#pragma once

#include <cstdint>

namespace headloom::train {

// The most memory that this process has held at once (VmHWM), in bytes; 0 where the system does not
// say.
int64_t peak_memory_bytes();

}  // namespace headloom::train

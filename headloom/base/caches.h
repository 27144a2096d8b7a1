#pragma once

#include <cstdint>

namespace headloom {

// Bytes of the last-level cache that the first processor has, 32 MiB where the system does not say.
// Results larger than a good part of it are best written past the caches.
int64_t last_level_cache_bytes();

}  // namespace headloom

#pragma once

#include <cstdint>
#include <functional>

namespace headloom {

// Splits [begin, end) into contiguous chunks of at least `grain` and runs body(chunk_begin,
// chunk_end) on torch's threads (one pool for everything: torch.set_num_threads governs it). Nested
// calls run on the calling thread.
void parallel_for(int64_t begin, int64_t end, int64_t grain,
                  const std::function<void(int64_t, int64_t)>& body);

// Threads that parallel_for uses, and the calling thread's number below that. Within a nested call
// the number is 0 on every thread: it cannot pick a buffer there.
int thread_count();
int thread_index();

}  // namespace headloom

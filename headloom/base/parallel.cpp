// The one file of base/ that knows torch: it lends the kernels torch's thread pool.
#include "headloom/base/parallel.h"

#include <ATen/Parallel.h>

namespace headloom {

void parallel_for(int64_t begin, int64_t end, int64_t grain,
                  const std::function<void(int64_t, int64_t)>& body) {
  at::parallel_for(begin, end, grain, body);
}

int thread_count() {
  return at::get_num_threads();
}

int thread_index() {
  return at::get_thread_num();
}

}  // namespace headloom

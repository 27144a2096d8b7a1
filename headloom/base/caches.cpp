#include "headloom/base/caches.h"

#include <fstream>

namespace headloom {
namespace {

// sysconf(_SC_LEVEL3_CACHE_SIZE) would add up the caches of a whole package, where a core has a
// share of one alone: 384 instead of 32 MiB on an EPYC.
int64_t read_size() {
  std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index3/size");
  int64_t size = 0;
  char unit = 0;
  if (!(file >> size >> unit) || size <= 0) return int64_t{32} << 20;
  return unit == 'K' ? size << 10 : unit == 'M' ? size << 20 : size;
}

}  // namespace

int64_t last_level_cache_bytes() {
  static const int64_t bytes = read_size();
  return bytes;
}

}  // namespace headloom

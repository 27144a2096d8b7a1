#include "tests/support/memory.h"

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <malloc.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <string>

namespace headloom::testing {
namespace {

// torch's CPU allocator tells the profiler about each block; this profiler only adds up.
class Counter : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t alloc_size, size_t, size_t, c10::Device) override {
    held_ += alloc_size;
    peak_ = std::max(peak_, held_);
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t peak() const { return peak_; }

 private:
  int64_t held_ = 0, peak_ = 0;
};

// A line of /proc/self/status in bytes, 0 where there is none.
int64_t status(const std::string& key) {
  std::ifstream file("/proc/self/status");
  for (std::string word; file >> word;) {
    if (word == key + ":") {
      int64_t kibibytes = 0;
      file >> kibibytes;
      return kibibytes * 1024;
    }
  }
  return 0;
}

// Sets the high-water mark to what is resident now.
bool reset_peak() {
  std::ofstream file("/proc/self/clear_refs");
  file << 5 << std::flush;
  return file.good();
}

}  // namespace

int64_t peak_extra_bytes(const std::function<void()>& call) {
  malloc_trim(0);
  const bool resident = reset_peak();
  const int64_t before = status("VmRSS");
  const auto counter = std::make_shared<Counter>();
  {
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, counter);
    call();
  }
  return std::max(counter->peak(), resident ? status("VmHWM") - before : 0);
}

}  // namespace headloom::testing

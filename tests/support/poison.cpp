#include "tests/support/poison.h"

#include <malloc.h>

#include <cstdlib>
#include <cstring>
#include <vector>

namespace headloom::testing {
namespace {

// 0xFF.. is a NaN in float64, float32, bfloat16 and float16. 0x7E.. is 1e301, 8e37, 8e37 and a NaN.
unsigned char byte_of(Poison::Pattern pattern) {
  return pattern == Poison::Pattern::kNaN ? 0xFF : 0x7E;
}

// Small blocks come back from malloc's per-thread cache as they were freed.
void dirty_small_blocks(unsigned char byte) {
  constexpr size_t kCached = 8, kLargest = 4096;
  for (size_t size = 16; size <= kLargest; size += 16) {
    std::vector<void*> blocks;
    for (size_t i = 0; i < kCached; ++i) {
      void* block = std::malloc(size);
      std::memset(block, byte, size);
      // Keeps the compiler from dropping a store to memory that is about to be freed.
      asm volatile("" : : "r"(block) : "memory");
      blocks.push_back(block);
    }
    for (void* block : blocks) std::free(block);
  }
}

}  // namespace

Poison::Poison(Pattern pattern) {
  dirty_small_blocks(byte_of(pattern));
  // glibc fills fresh blocks with the complement of the low byte; a zero value would switch it off.
  mallopt(M_PERTURB, 0x100 | (byte_of(pattern) ^ 0xFF));
}

Poison::~Poison() {
  mallopt(M_PERTURB, 0);
}

}  // namespace headloom::testing

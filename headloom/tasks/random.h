#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "headloom/base/rng.h"

namespace headloom::tasks {

// What random numbers are for: streams of one seed with different purposes never share a counter.
enum class Purpose : uint64_t {
  kExpressions = 1,
  kOrder = 2,
  kWindows = 3,
  kEdits = 4,
  kImages = 5,
  kAttacked = 6,
  kTrainingMask = 8,
  kValidationMask = 9,
};

// The numbers of (seed, purpose, index), one after the other. index < 2^56.
class RandomStream {
 public:
  RandomStream(uint64_t seed, Purpose purpose, uint64_t index)
      : seed_(seed), stream_((static_cast<uint64_t>(purpose) << 56) | index) {}

  uint32_t word() {
    if (used_ == 4) {
      block_ = philox4x32(seed_, counter_++, stream_);
      used_ = 0;
    }
    return block_.word[used_++];
  }

  // Uniform in [0, 1), 32 bits.
  double uniform() { return word() * 0x1p-32; }

  // Uniform in 0 .. n - 1, n >= 1. No value is off its share by more than 2^-16 of it.
  uint64_t below(uint64_t n) {
    if (n <= 0x10000) return (word() * n) >> 32;
    const uint64_t high = word();
    const uint64_t wide = (high << 32) | word();
    return static_cast<uint64_t>((static_cast<unsigned __int128>(wide) * n) >> 64);
  }

  // Fisher-Yates.
  void shuffle(std::vector<int64_t>& values) {
    for (size_t left = values.size(); left > 1; --left) {
      std::swap(values[left - 1], values[below(left)]);
    }
  }

 private:
  uint64_t seed_, stream_;
  uint64_t counter_ = 0;
  Philox4 block_{};
  int used_ = 4;
};

}  // namespace headloom::tasks

#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace headloom::text {

// A map from 64-bit keys to 64-bit values by open addressing. The key ~0 is taken.
class PairTable {
 public:
  PairTable() : slots_(16, {kFree, 0}) {}

  void set(uint64_t key, uint64_t value) {
    if (2 * (size_ + 1) > slots_.size()) grow();
    Slot& slot = slots_[place(key)];
    size_ += slot.first == kFree;
    slot = {key, value};
  }

  const uint64_t* find(uint64_t key) const {
    const Slot& slot = slots_[place(key)];
    return slot.first == kFree ? nullptr : &slot.second;
  }

 private:
  using Slot = std::pair<uint64_t, uint64_t>;
  static constexpr uint64_t kFree = ~uint64_t{0};

  // Fibonacci hashing; the high half of the product depends on all bits of the key.
  size_t place(uint64_t key) const {
    const size_t mask = slots_.size() - 1;
    size_t at = static_cast<size_t>((key * 0x9E3779B97F4A7C15u) >> 32) & mask;
    while (slots_[at].first != kFree && slots_[at].first != key) at = (at + 1) & mask;
    return at;
  }

  void grow() {
    std::vector<Slot> old(2 * slots_.size(), {kFree, 0});
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.first != kFree) slots_[place(slot.first)] = slot;
    }
  }

  std::vector<Slot> slots_;  // a power of two of them
  size_t size_ = 0;
};

inline uint64_t pair_key(uint32_t first, uint32_t second) {
  return (static_cast<uint64_t>(first) << 32) | second;
}

}  // namespace headloom::text

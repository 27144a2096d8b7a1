#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <random>

#include "headloom/base/numeric.h"

namespace headloom::kernels::testing {

// An array that ends at a page which may not be touched: reading or writing past it stops the
// program. In front of it lie bytes of a known pattern. Its contents start as NaN.
template <class T>
class Guarded {
 public:
  // `gap` elements are left free at the end, so that addresses of every alignment occur; they are
  // part of the pattern.
  explicit Guarded(int64_t size, int64_t gap = 0) : size_(size), gap_(gap) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t wanted = kFront + static_cast<size_t>(size + gap) * sizeof(T);
    usable_ = (wanted + page - 1) / page * page;
    void* base =
        mmap(nullptr, usable_ + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) {
      throw std::bad_alloc();
    }
    base_ = static_cast<unsigned char*>(base);
    mprotect(base_ + usable_, page, PROT_NONE);
    std::memset(base_, kPattern, usable_);
    // All ones is a NaN in each of the types.
    std::memset(static_cast<void*>(data()), 0xff, static_cast<size_t>(size) * sizeof(T));
  }
  ~Guarded() { munmap(base_, usable_ + static_cast<size_t>(sysconf(_SC_PAGESIZE))); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  T* data() { return reinterpret_cast<T*>(base_ + usable_) - size_ - gap_; }
  T& operator[](int64_t i) { return data()[i]; }
  int64_t size() const { return size_; }

  // Whether nothing around the array was written.
  bool surroundings_intact() {
    const auto* begin = reinterpret_cast<const unsigned char*>(data());
    const auto* end = begin + static_cast<size_t>(size_) * sizeof(T);
    const auto foreign = [](unsigned char byte) { return byte != kPattern; };
    return std::none_of(static_cast<const unsigned char*>(base_), begin, foreign) &&
           std::none_of(end, static_cast<const unsigned char*>(base_) + usable_, foreign);
  }

 private:
  static constexpr size_t kFront = 256;
  static constexpr unsigned char kPattern = 0xa5;
  int64_t size_, gap_;
  size_t usable_;
  unsigned char* base_;
};

// Whether an element still is what Guarded put there.
template <class T>
bool untouched(const T& value) {
  unsigned char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  for (unsigned char byte : bytes) {
    if (byte != 0xff) {
      return false;
    }
  }
  return true;
}

template <class T>
T from_double(double value) {
  if constexpr (sizeof(T) == 2) {
    return T(static_cast<float>(value));
  } else {
    return static_cast<T>(value);
  }
}
template <class T>
double to_double(T value) {
  if constexpr (sizeof(T) == 2) {
    return static_cast<double>(static_cast<float>(value));
  } else {
    return static_cast<double>(value);
  }
}

// Uniform in [-limit, limit).
template <class T>
void fill_uniform(T* p, int64_t size, uint32_t seed, double limit = 1.0) {
  std::minstd_rand engine(seed + 1);
  std::uniform_real_distribution<double> draw(-limit, limit);
  for (int64_t i = 0; i < size; ++i) {
    p[i] = from_double<T>(draw(engine));
  }
}

}  // namespace headloom::kernels::testing

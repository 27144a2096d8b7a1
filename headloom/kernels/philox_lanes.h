#pragma once

#include "headloom/base/rng.h"
#include "headloom/kernels/simd.h"

// The blocks of philox4x32 (base/rng.h) for as many counters as there are lanes of float.
namespace headloom::kernels::HEADLOOM_ISA {

typedef uint64_t Wide __attribute__((vector_size(kVectorBytes)));

// a[i] * factor, its upper and lower 32 bits: products of the even and of the odd lanes.
HEADLOOM_INLINE void multiply_wide(Lanes<float>::UInt a, uint64_t factor, Lanes<float>::UInt& upper,
                                   Lanes<float>::UInt& lower) {
  using UInt = Lanes<float>::UInt;
  constexpr uint64_t kLow = 0xffffffffu;
  const Wide even = ((Wide)a & kLow) * factor, odd = ((Wide)a >> 32) * factor;
  upper = (UInt)((even >> 32) | (odd & ~kLow));
  lower = (UInt)((even & kLow) | (odd << 32));
}

// words[w][lane] = philox4x32(key, counters[lane]).word[w]
HEADLOOM_INLINE void philox_lanes(uint64_t key, const uint64_t (&counters)[kWidth<float>],
                                  uint32_t (&words)[4][kWidth<float>]) {
  using UInt = Lanes<float>::UInt;
  constexpr uint64_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
  constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  UInt c0 = {}, c1 = {}, c2 = {}, c3 = {};
  for (int i = 0; i < kWidth<float>; ++i) {
    c0[i] = static_cast<uint32_t>(counters[i]);
    c1[i] = static_cast<uint32_t>(counters[i] >> 32);
  }
  uint32_t key0 = static_cast<uint32_t>(key), key1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    UInt upper0, lower0, upper1, lower1;
    multiply_wide(c0, kMultiplier0, upper0, lower0);
    multiply_wide(c2, kMultiplier1, upper1, lower1);
    c0 = upper1 ^ c1 ^ key0;
    c1 = lower1;
    c2 = upper0 ^ c3 ^ key1;
    c3 = lower0;
    key0 += kWeyl0;
    key1 += kWeyl1;
  }
  __builtin_memcpy(words[0], &c0, sizeof(c0));
  __builtin_memcpy(words[1], &c1, sizeof(c1));
  __builtin_memcpy(words[2], &c2, sizeof(c2));
  __builtin_memcpy(words[3], &c3, sizeof(c3));
}

}  // namespace headloom::kernels::HEADLOOM_ISA

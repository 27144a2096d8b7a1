#pragma once

#include <cstdint>

#include "headloom/base/inline.h"

// Counter-based random numbers (Philox4x32-10, Salmon et al., SC 2011): the value of element i is a
// function of (seed, i) alone. A backward pass therefore regenerates what the forward pass drew,
// and every processor, thread count and traversal order sees the same numbers.
namespace headloom {

struct Philox4 {
  uint32_t word[4];
};

// One block: four independent words for a 64-bit key and a 128-bit counter.
HEADLOOM_INLINE Philox4 philox4x32(uint64_t key, uint64_t counter_low, uint64_t counter_high = 0) {
  constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
  constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  Philox4 c{{static_cast<uint32_t>(counter_low), static_cast<uint32_t>(counter_low >> 32),
             static_cast<uint32_t>(counter_high), static_cast<uint32_t>(counter_high >> 32)}};
  uint32_t key0 = static_cast<uint32_t>(key), key1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = static_cast<uint64_t>(kMultiplier0) * c.word[0];
    const uint64_t product1 = static_cast<uint64_t>(kMultiplier1) * c.word[2];
    c = Philox4{{static_cast<uint32_t>(product1 >> 32) ^ c.word[1] ^ key0,
                 static_cast<uint32_t>(product1),
                 static_cast<uint32_t>(product0 >> 32) ^ c.word[3] ^ key1,
                 static_cast<uint32_t>(product0)}};
    key0 += kWeyl0;
    key1 += kWeyl1;
  }
  return c;
}

// The 32-bit word of element `index` in the stream of `seed`.
HEADLOOM_INLINE uint32_t random_word(uint64_t seed, uint64_t index) {
  return philox4x32(seed, index / 4).word[index % 4];
}

// Uniform in [0, 1), 24 bits, exact in float32.
HEADLOOM_INLINE float random_uniform(uint64_t seed, uint64_t index) {
  return static_cast<float>(random_word(seed, index) >> 8) * 0x1p-24f;
}

// Words below the threshold are dropped: a share `p` of all elements, to 2^-32.
HEADLOOM_INLINE uint64_t drop_threshold(double p) {
  return static_cast<uint64_t>(p * 4294967296.0);
}

// Whether dropout with probability p keeps element `index`.
HEADLOOM_INLINE bool dropout_keeps(uint64_t seed, uint64_t index, uint64_t threshold) {
  return random_word(seed, index) >= threshold;
}

}  // namespace headloom

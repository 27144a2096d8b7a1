#pragma once

#include "headloom/base/rng.h"
#include "headloom/kernels/simd.h"

// The random numbers of base/rng.h, one block a lane, and tiles of the dropout mask of
// base/dropout_mask.h with the queries in the lanes.
namespace headloom::kernels::HEADLOOM_ISA {

using Words = Lanes<float>::UInt;

struct PhiloxLanes {
  Words word[4];
};

// philox4x32(key, counter) for the 64-bit counter low + 2^32 high of each lane.
HEADLOOM_INLINE PhiloxLanes philox_lanes(uint64_t key, Words low, Words high) {
  constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
  constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  PhiloxLanes c{{low, high, Words{}, Words{}}};
  uint32_t key0 = static_cast<uint32_t>(key), key1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    Words high0, low0, high1, low1;
    multiply_words(c.word[0], kMultiplier0, high0, low0);
    multiply_words(c.word[2], kMultiplier1, high1, low1);
    c = PhiloxLanes{{high1 ^ c.word[1] ^ key0, low1, high0 ^ c.word[3] ^ key1, low0}};
    key0 += kWeyl0;
    key1 += kWeyl1;
  }
  return c;
}

// Rows [query, query + lanes) and columns [key, key + keys) of head `head` of the mask of a tensor
// [.., queries, keys_in_row], counted in `rows_before` rows.
struct DropoutTile {
  uint64_t seed;
  uint32_t threshold;
  int64_t first_element, keys_in_row;  // element of (lane 0, key 0); elements between lanes
};

// Word `first + row` of the eight that two neighbouring blocks hold, `first` (0 to 3) by lane: a
// lane's first element need not be the first of its block.
template <int kRow>
HEADLOOM_INLINE Words word_of(const PhiloxLanes& block, const PhiloxLanes& next, Words first) {
  const auto word = [&](auto i) HEADLOOM_INLINE_LAMBDA {
    return i < 4 ? block.word[i % 4] : next.word[i % 4];
  };
  Words found = word(Index<kRow>{});
  found = first == 1 ? word(Index<kRow + 1>{}) : found;
  found = first == 2 ? word(Index<kRow + 2>{}) : found;
  return first == 3 ? word(Index<kRow + 3>{}) : found;
}

// row[lane] = kept or 0
HEADLOOM_INLINE void store_kept(float* row, Words words, uint32_t threshold, float kept) {
  store(row, Vec<float>{words < threshold ? zero<float>().native : set1(kept).native});
}
HEADLOOM_INLINE void store_kept(double* row, Words words, uint32_t threshold, double kept) {
  for (int i = 0; i < kWidth<float>; ++i) {
    row[i] = words[i] < threshold ? 0.0 : kept;
  }
}

// tile[key, lane] = kept where the element `first(lane) + key` stays and 0 where it is dropped;
// lanes are rounded up to whole vectors of float, and the last row may be written to that far as
// well.
template <class T, class First>
void dropout_lanes(uint64_t seed, uint32_t threshold, const First& first_of, T kept, int64_t keys,
                   int64_t lanes, T* tile, int64_t stride) {
  for (int64_t lane = 0; lane < lanes; lane += kWidth<float>) {
    Words low = {}, high = {}, first = {};
    for (int i = 0; i < kWidth<float>; ++i) {
      const auto element = static_cast<uint64_t>(first_of(lane + i));
      first[i] = static_cast<uint32_t>(element % 4);
      low[i] = static_cast<uint32_t>(element / 4);
      high[i] = static_cast<uint32_t>(element / 4 >> 32);
    }
    PhiloxLanes block = philox_lanes(seed, low, high);
    for (int64_t key = 0; key < keys; key += 4) {
      low += 1;
      high += low == 0 ? Words{} + 1 : Words{};
      const PhiloxLanes next = philox_lanes(seed, low, high);
      unroll<4>([&](auto i) HEADLOOM_INLINE_LAMBDA {
        if (key + i < keys) {
          store_kept(tile + (key + i) * stride + lane, word_of<i>(block, next, first), threshold,
                     kept);
        }
      });
      block = next;
    }
  }
}

// The same for a tile of a tensor's mask.
template <class T>
void dropout_tile(const DropoutTile& mask, T kept, int64_t keys, int64_t lanes, T* tile,
                  int64_t stride) {
  const auto first = [&](int64_t lane) HEADLOOM_INLINE_LAMBDA {
    return mask.first_element + lane * mask.keys_in_row;
  };
  dropout_lanes(mask.seed, mask.threshold, first, kept, keys, lanes, tile, stride);
}

}  // namespace headloom::kernels::HEADLOOM_ISA

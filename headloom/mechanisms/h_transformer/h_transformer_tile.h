#pragma once

#include "headloom/kernels/online_softmax.h"
#include "headloom/kernels/philox_lanes.h"
#include "headloom/kernels/transpose.h"
#include "headloom/mechanisms/h_transformer/h_transformer_products.h"
#include "headloom/mechanisms/h_transformer/h_transformer_pyramid.h"

// Tiles of queries, one a lane, and the keys of one level that they see. x rows of queries, y rows
// of keys, both counted in tokens at level 0 and in groups above; R block size.
namespace headloom::kernels::HEADLOOM_ISA {

// Scores of a tile that are looked at together; they stay in the first-level cache.
inline constexpr int64_t kMaxKeys = 128;

// Whether tiles are two vectors wide: when a block fills them; of a causal sequence, whose masks
// are half of what a tile sees, when half a block does.
template <class T>
HEADLOOM_INLINE bool wide_tiles(const HAttentionShape& s) {
  return s.block >= (s.causal ? 4 : 2) * kWidth<T>;
}

// Lanes of a tile. In the fine form a lane is a token at every level, and its row is the group.
template <class T, int kVectors>
struct LaneTile {
  static constexpr int64_t kLanes = kVectors * kWidth<T>;
  int64_t first, live;           // the first lane's row or token; lanes in use
  int shift = 0;                 // row = lane's number >> shift
  int64_t low, high;             // rows of the first and the last lane in use
  alignas(64) T offset[kLanes];  // row - low

  HEADLOOM_INLINE int64_t row(int64_t lane) const { return (first + lane) >> shift; }

  HEADLOOM_INLINE void place(int64_t at, int64_t rows, int by) {
    first = at;
    live = at_most(kLanes, rows - at);
    shift = by;
    low = first >> shift;
    high = (first + live - 1) >> shift;
    for (int i = 0; i < static_cast<int>(kLanes); ++i) {
      offset[i] = shift == 0 ? static_cast<T>(i) : static_cast<T>(((first + i) >> shift) - low);
    }
  }
};

struct KeyRanges {
  RowRange range[2];
  int count;
};

// What some query of [low, high] sees at a level: the block of its own and its neighbours at level
// 0, the neighbours alone above, without the quadrant that the level below has covered. In halves
// of a block, an even half a sees a - 2, a + 2, a + 3 and an odd one a - 3, a - 2, a + 2.
HEADLOOM_INLINE KeyRanges visible_keys(const HAttentionShape& s, int level, int64_t rows,
                                       int64_t low, int64_t high) {
  if (level == 0) {
    const int64_t begin = (low / s.block - 1) * s.block;
    const int64_t end = s.causal ? high + 1 : (high / s.block + 2) * s.block;
    return {{{at_least(begin, 0), at_most(end, rows)}, {}}, 1};
  }
  const int64_t half = s.block / 2, a = low / half, b = high / half;
  const RowRange left{at_least((a - 2 - (a & 1)) * half, 0), at_least((b - 1) * half, 0)};
  if (s.causal) return {{left, {}}, 1};
  const RowRange right{at_most((a + 2) * half, rows), at_most((b + 4 - (b & 1)) * half, rows)};
  if (left.end >= right.begin) return {{{left.begin, right.end}, {}}, 1};
  return {{left, right}, 2};
}

// Queries that see the keys of a unit, which is a block at level 0 and half a block above.
struct SeenBy {
  RowRange after, before;

  HEADLOOM_INLINE bool all(int64_t low, int64_t high) const {
    return (after.begin <= low && high < after.end) || (before.begin <= low && high < before.end);
  }
};
HEADLOOM_INLINE SeenBy seen_by(const HAttentionShape& s, int level, int64_t unit) {
  if (level == 0) return {{(unit - 1) * s.block, (unit + 2) * s.block}, {0, 0}};
  const int64_t half = s.block / 2;
  const RowRange after{(unit + 2) * half, (unit + 4 - (unit & 1)) * half};
  if (s.causal) return {after, {0, 0}};
  return {after, {(unit - 2 - (unit & 1)) * half, (unit - 1) * half}};
}

// Consecutive keys whose scores stand from `row` on.
struct KeySegment {
  int64_t key, count, row;
};
struct KeySegments {
  KeySegment segment[2];
  int count = 0;
  int64_t rows = 0;
};

// body(keys) for what some of the lanes [begin, begin + count) see of what is held.
template <class T, int kVectors, class Body>
HEADLOOM_INLINE void for_seen(const HAttentionShape& s, const HAttentionLevel<T>& level,
                              const LaneTile<T, kVectors>& tile, int64_t begin, int64_t count,
                              const KeySegments& held, const Body& body) {
  const int64_t last = at_most(begin + count, tile.live) - 1;
  const KeyRanges keys = visible_keys(s, level.level, level.rows, tile.row(begin), tile.row(last));
  for (int i = 0; i < held.count; ++i) {
    const KeySegment& part = held.segment[i];
    for (int r = 0; r < keys.count; ++r) {
      const int64_t first = at_least(part.key, keys.range[r].begin);
      const int64_t end = at_most(part.key + part.count, keys.range[r].end);
      if (first < end) body(KeySegment{first, end - first, part.row + first - part.key});
    }
  }
}

// score(segment) for all keys, in order, and flush(segments) whenever the rows are used up.
template <class Score, class Flush>
HEADLOOM_INLINE void walk_keys(const KeyRanges& keys, const Score& score, const Flush& flush) {
  KeySegments held;
  for (int r = 0; r < keys.count; ++r) {
    for (int64_t y = keys.range[r].begin; y < keys.range[r].end;) {
      const KeySegment part{y, at_most(keys.range[r].end - y, kMaxKeys - held.rows), held.rows};
      score(part);
      held.segment[held.count++] = part;
      held.rows += part.count;
      y += part.count;
      if (held.rows == kMaxKeys) {
        flush(held);
        held = {};
      }
    }
  }
  if (held.rows > 0) flush(held);
}

template <class T>
HEADLOOM_INLINE T lane_bound(int64_t row, int64_t low) {
  return static_cast<T>(at_least(at_most(row - low, 4 * kHAttentionMaxLanes), -1));
}

// Bias, counts and masks of one piece of keys that the same queries see.
template <class T, int kVectors>
struct Decoration {
  const HAttentionTask<T>& p;
  const HAttentionLevel<T>& level;
  const LaneTile<T, kVectors>& tile;
  SeenBy seen;
  bool counts, masked;

  HEADLOOM_INLINE void bias_of(int64_t key, T* row) const {
    const T* centre = p.bias + kHAttentionBiasMargin + 2 * p.shape.block - 1 + tile.low - key;
    for (int64_t i = 0; i < tile.kLanes; ++i) row[i] = centre[static_cast<int>(tile.offset[i])];
  }

  HEADLOOM_INLINE void apply(int64_t key, T* scores) const {
    T bias[LaneTile<T, kVectors>::kLanes];
    if (p.bias != nullptr) bias_of(key, bias);
    const bool diagonal = level.level == 0 && p.shape.causal;
    const int64_t begin = diagonal ? at_least(seen.after.begin, key) : seen.after.begin;
    const Vec<T> after = set1(lane_bound<T>(begin, tile.low)),
                 after_end = set1(lane_bound<T>(seen.after.end, tile.low)),
                 before = set1(lane_bound<T>(seen.before.begin, tile.low)),
                 before_end = set1(lane_bound<T>(seen.before.end, tile.low)),
                 nothing = set1(-ExpConstants<T>::kInfinity);
    unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
      Vec<T> score = load(scores + j * kWidth<T>);
      if (p.bias != nullptr) score = score + load(bias + j * kWidth<T>);
      if (counts) score = score + set1(level.key_bias[key]);
      if (masked) {
        const Vec<T> row = load(tile.offset + j * kWidth<T>);
        const Vec<T> left = select((before <= row) & (row < before_end), score, nothing);
        score = select((after <= row) & (row < after_end), score, left);
      }
      store(scores + j * kWidth<T>, score);
    });
  }
};

// The same where nothing but the mask is to be applied, and to all rows alike.
template <int kVectors, class T>
HEADLOOM_INLINE void mask_rows(const LaneTile<T, kVectors>& tile, const SeenBy& seen, int64_t count,
                               T* scores) {
  const Vec<T> nothing = set1(-ExpConstants<T>::kInfinity);
  const Vec<T> after = set1(lane_bound<T>(seen.after.begin, tile.low)),
               after_end = set1(lane_bound<T>(seen.after.end, tile.low)),
               before = set1(lane_bound<T>(seen.before.begin, tile.low)),
               before_end = set1(lane_bound<T>(seen.before.end, tile.low));
  unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
    const Vec<T> row = load(tile.offset + j * kWidth<T>);
    const auto left = (before <= row) & (row < before_end);
    const auto right = (after <= row) & (row < after_end);
    T* score = scores + j * kWidth<T>;
    for (int64_t i = 0; i < count; ++i, score += tile.kLanes) {
      const Vec<T> s = load(score);
      store(score, select(right, s, select(left, s, nothing)));
    }
  });
}

template <int kVectors, class T>
HEADLOOM_INLINE void decorate(const HAttentionTask<T>& p, const HAttentionLevel<T>& level,
                              const LaneTile<T, kVectors>& tile, KeySegment part, T* scores) {
  const HAttentionShape& s = p.shape;
  const int64_t size = level.level == 0 ? s.block : s.block / 2;
  int64_t unit = part.key / size;
  for (int64_t y = part.key; y < part.key + part.count; ++unit) {
    const int64_t end = at_most((unit + 1) * size, part.key + part.count);
    const SeenBy seen = seen_by(s, level.level, unit);
    const bool diagonal = level.level == 0 && s.causal && tile.low < end - 1;
    const bool counts = end > level.whole, hides = !seen.all(tile.low, tile.high);
    T* rows = scores + (part.row + y - part.key) * tile.kLanes;
    if (p.bias != nullptr || counts || diagonal) {
      const Decoration<T, kVectors> piece{p, level, tile, seen, counts, diagonal || hides};
      for (; y < end; ++y, rows += tile.kLanes) piece.apply(y, rows);
    } else if (hides) {
      mask_rows<kVectors>(tile, seen, end - y, rows);
    }
    y = end;
  }
}

// Scores of `part` against the tile's queries, [count, lanes] from its row on.
template <int kVectors, class T, class Before = Nothing>
HEADLOOM_INLINE void score_keys(const HAttentionTask<T>& p, const HAttentionLevel<T>& level,
                                const LaneTile<T, kVectors>& tile, const T* q, KeySegment part,
                                T* scores, const Before& before = {}) {
  lanes_product<kVectors>(part.count, p.shape.width, level.k + part.key * level.k_stride,
                          level.k_stride, 1, q, scores + part.row * tile.kLanes, Assign{}, before);
  decorate<kVectors>(p, level, tile, part, scores);
}

// OnlineSoftmax::absorb for a tile whose state is kept in memory: works on a copy, which stays in
// registers, and in several chains, which do not wait for each other. state.factor is always set.
template <class T, int kVectors>
HEADLOOM_INLINE void absorb(OnlineSoftmax<T, kVectors>& state, T* scores, int64_t keys) {
  constexpr int kChains = 4 / kVectors;
  constexpr int64_t kLanes = kVectors * kWidth<T>;
  Vec<T> next[kChains][kVectors], sum[kChains][kVectors], shift[kVectors];
  const auto each = [](auto body) HEADLOOM_INLINE_LAMBDA {
    unroll<kChains>([&](auto c) HEADLOOM_INLINE_LAMBDA {
      unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA { body(c, j); });
    });
  };
  each([&](auto c, auto j) HEADLOOM_INLINE_LAMBDA {
    next[c][j] = state.maximum[j];
    sum[c][j] = zero<T>();
  });
  const int64_t whole = keys - keys % kChains;
  int64_t i = 0;
  // A key belongs to one chain whatever comes after it: a prefix has the sums of the whole.
  const auto rest = [&](auto body) HEADLOOM_INLINE_LAMBDA {
    unroll<kChains - 1>([&](auto c) HEADLOOM_INLINE_LAMBDA {
      if (i + c < keys) {
        unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA { body(c, j); });
      }
    });
  };
  const auto find = [&](auto c, auto j) HEADLOOM_INLINE_LAMBDA {
    next[c][j] = max(load(scores + (i + c) * kLanes + j * kWidth<T>), next[c][j]);
  };
  for (; i < whole; i += kChains) each(find);
  rest(find);
  unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
    unroll<kChains - 1>(
        [&](auto c) HEADLOOM_INLINE_LAMBDA { next[0][j] = max(next[0][j], next[c + 1][j]); });
    shift[j] = finite_shift(next[0][j]);
  });
  const auto weigh = [&](auto c, auto j) HEADLOOM_INLINE_LAMBDA {
    T* score = scores + (i + c) * kLanes + j * kWidth<T>;
    const Vec<T> weight = exp2(load(score) - shift[j]);
    sum[c][j] = sum[c][j] + weight;
    store(score, weight);
  };
  for (i = 0; i < whole; i += kChains) each(weigh);
  rest(weigh);
  unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
    unroll<kChains - 1>([&](auto c)
                            HEADLOOM_INLINE_LAMBDA { sum[0][j] = sum[0][j] + sum[c + 1][j]; });
    state.factor[j] = exp2(finite_shift(state.maximum[j]) - shift[j]);
    state.maximum[j] = next[0][j];
    state.sum[j] = fma(state.sum[j], state.factor[j], sum[0][j]);
  });
}

// What the weights of some keys, [count, lanes], are multiplied by; 0 or kept where no query sees
// the key.
template <class T, int kVectors>
struct DropoutMultipliers {
  static constexpr int64_t kLanes = LaneTile<T, kVectors>::kLanes;
  // dropout_lanes() writes whole vectors of float.
  alignas(64) T values[kMaxKeys * kLanes + kWidth<float>];

  void draw(const HAttentionTask<T>& p, int level, const LaneTile<T, kVectors>& tile,
            const KeySegment& part) {
    const HAttentionShape& s = p.shape;
    int64_t first_row = p.dropout.first_row + (s.fine ? level * s.time : 0);
    for (int l = 0; l < level && !s.fine; ++l) first_row += s.rows(l);
    const auto element = [&](int64_t lane) HEADLOOM_INLINE_LAMBDA {
      const int64_t offset = part.key - tile.row(lane) + 2 * s.block - 1;
      return (first_row + tile.first + lane) * 4 * s.block + offset;
    };
    dropout_lanes(p.dropout.seed, static_cast<uint32_t>(p.dropout.threshold), element,
                  static_cast<T>(p.dropout.kept), part.count, kLanes, values, kLanes);
  }
};

// Lanes of a tile one level down: each row of the parent stands for two.
template <int kPart, class T, int... kLane>
HEADLOOM_INLINE Vec<T> double_lanes(Vec<T> a, std::integer_sequence<int, kLane...>) {
  return {__builtin_shufflevector(a.native, a.native, (kPart * (kWidth<T> / 2) + kLane / 2)...)};
}

// Vector j of a tile that is the given half of its parent, whose lanes are at `from`.
template <int kVectors, class T, class J>
HEADLOOM_INLINE Vec<T> from_parent(const T* from, bool second_half, J) {
  using Lane = std::make_integer_sequence<int, kWidth<T>>;
  if constexpr (kVectors == 1) {
    const Vec<T> a = load(from);
    return second_half ? double_lanes<1>(a, Lane{}) : double_lanes<0>(a, Lane{});
  } else {
    static_assert(kVectors == 2);
    const Vec<T> a = load(from + (second_half ? kWidth<T> : 0));
    return double_lanes < J{} == 0 ? 0 : 1 > (a, Lane{});
  }
}

// What the next tile will read of a level and this one did not.
template <int kVectors, class T>
HEADLOOM_INLINE void prefetch_keys(const HAttentionTask<T>& p, const HAttentionLevel<T>& level,
                                   const LaneTile<T, kVectors>& tile, const KeyRanges& keys) {
  const int64_t step = at_least(tile.kLanes >> tile.shift, 1);
  for (int r = 0; r < keys.count; ++r) {
    const int64_t end = keys.range[r].end;
    prefetch_rows<false>(level.k, level.k_stride, p.shape.width, end, step, level.rows);
    prefetch_rows<false>(level.v, level.v_stride, p.shape.value_width, end, step, level.rows);
  }
}

// The tile's queries, [D, lanes], times the factor; zeros in lanes that are no query.
template <int kVectors, class T>
HEADLOOM_INLINE void tile_columns(const T* rows, int64_t stride, int64_t width, T factor,
                                  const LaneTile<T, kVectors>& tile, T* to) {
  if (tile.live < tile.kLanes) {
    for (int64_t i = 0; i < width * tile.kLanes; i += kWidth<T>) store(to + i, zero<T>());
  }
  transpose_tile(rows + tile.first * stride, stride, tile.live, width, to, tile.kLanes, factor);
}

}  // namespace headloom::kernels::HEADLOOM_ISA

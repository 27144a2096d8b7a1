#pragma once

#include <cstdint>

#include "headloom/base/inline.h"
#include "headloom/base/numeric.h"
#include "headloom/kernels/isa.h"

// Kernels of hierarchical attention on one sequence of one head; the mathematics is in
// h_transformer.h. T tokens, R block size, D width of queries and keys, E width of values, l level:
// row J of level l stands for the tokens [J 2^l, (J + 1) 2^l).
//
// Levels below `stored` are built again for each chunk of tokens, in cache, with a halo on either
// side; the others, a small part of the whole, are built once for the sequence.
namespace headloom::kernels {

constexpr int kHAttentionMaxLevels = 48;
constexpr int64_t kHAttentionLong = 16384;
// No instruction set has tiles of more queries: sizes that depend on the tile count in these.
constexpr int64_t kHAttentionMaxLanes = 32;
// What a table of biases has on either side, for lanes that look beyond it.
constexpr int64_t kHAttentionBiasMargin = 64;

struct HAttentionShape {
  int64_t time, block, width, value_width;
  bool causal, fine;  // fine: queries are not coarsened
  int levels;
  int stored;                              // 1 <= stored: the first level that is built once
  int64_t chunk, halo_before, halo_after;  // tokens; multiples of 2^stored

  HEADLOOM_INLINE int64_t rows(int level) const {
    return (time + (int64_t{1} << level) - 1) >> level;
  }
  HEADLOOM_INLINE int64_t chunks() const { return (time + chunk - 1) / chunk; }
  HEADLOOM_INLINE int local_levels() const { return stored < levels ? stored : levels; }
  // Levels of which no row reaches beyond a chunk.
  HEADLOOM_INLINE int chunk_levels() const {
    int count = 1;
    while (count < levels && (int64_t{1} << count) <= chunk) ++count;
    return count;
  }
  HEADLOOM_INLINE int64_t bias_size() const { return 4 * block - 1 + 2 * kHAttentionBiasMargin; }
};

// The number of levels: the last has two blocks at most.
HEADLOOM_INLINE int h_attention_levels(int64_t time, int64_t block) {
  int levels = 1;
  while (time > ((2 * block) << (levels - 1))) ++levels;
  return levels;
}

// Sizes of the pieces of work. Where a sequence is long and its blocks are small, the arithmetic
// for a token hardly pays for fetching it: the first level is then built anew for each chunk, in
// the second-level cache, instead of being stored.
HEADLOOM_INLINE HAttentionShape h_attention_shape(int64_t time, int64_t block, int64_t width,
                                                  int64_t value_width, bool causal, bool fine) {
  HAttentionShape s{
      time, block, width, value_width, causal, fine, h_attention_levels(time, block), 1, 0, 0, 0};
  s.stored = fine || block > 64 || time < kHAttentionLong ? 1 : 2;
  s.chunk = 512;
  while (s.chunk < 4 * block) s.chunk *= 2;
  s.halo_before = block << s.stored;
  s.halo_after = causal ? 0 : s.halo_before;
  return s;
}

// Weights are dropped by a mask with one row for each query at each level, coarse ones first level
// by level, and 4R elements a row: the offset of the key, J - I + 2R - 1.
struct HAttentionDropout {
  bool active = false;
  uint64_t seed, threshold;
  double kept;
  int64_t first_row;  // of this head
};

// What does not depend on the storage type; T is its accumulator.
template <class T>
struct HAttentionTask {
  HAttentionShape shape;
  const uint8_t *key_padding, *query_padding;  // [T], not 0 at padding; nullptr: none
  const T* key_mean;                           // [D], subtracted from the keys; nullptr: zeros
  // In base 2 and reversed: bias[margin + 2R - 1 + I - J]; nullptr: none.
  const T* bias;
  T scale;  // of a logit in base 2
  HAttentionDropout dropout;
  T* log2_sum;  // [T]: log2 of the sum of 2^logit, -inf where a query has nothing to attend
  T* upper;     // the stored levels, h_attention_upper_size() elements
};

template <class S>
struct HAttentionProblem : HAttentionTask<accumulator_t<S>> {
  const S *q, *k, *v;  // [T, D], [T, D], [T, E], rows contiguous
  int64_t q_stride, k_stride, v_stride;
  S* out;  // [T, E]
  int64_t out_stride;
};

// grad_* may be nullptr where nobody asks. The forward pass's out and log2_sum are read.
template <class S>
struct HAttentionGradProblem : HAttentionProblem<S> {
  const S* grad_out;  // [T, E]
  int64_t grad_out_stride;
  S *grad_q, *grad_k, *grad_v;  // [T, D], [T, D], [T, E]
  int64_t grad_q_stride, grad_k_stride, grad_v_stride;
  accumulator_t<S>* grad_bias;  // laid out as `bias`, added to
};

// One level. Pointers take the row's number in the whole level, whatever part is in memory.
template <class T>
struct HAttentionLevel {
  int level = 0;
  int64_t rows = 0;  // of the whole level
  // Keys and queries below these stand for 2^level tokens each.
  int64_t whole = 0, whole_queries = 0;
  const T *q = nullptr, *k = nullptr, *v = nullptr;
  int64_t q_stride = 0, k_stride = 0, v_stride = 0;
  T *key_count = nullptr, *query_count = nullptr;  // tokens that are not padding
  T* key_bias = nullptr;                           // log2(count) - level
  T* state = nullptr;  // tiles of queries: maximum, sum [lanes], means [lanes, E]
  // Backward pass: the share that a row has in its parent, the queries' least log2_sum, gradient
  // and its product with the output in that scale, and the gradients.
  T *key_share = nullptr, *query_share = nullptr;
  T *least = nullptr, *inner = nullptr;
  const T* grad = nullptr;
  int64_t grad_stride = 0;
  T *grad_k = nullptr, *grad_v = nullptr;
  T* grad_state = nullptr;  // tiles of queries: [lanes, D]
};

// Hands out parts of a buffer, or only counts when it has none.
template <class T>
struct HAttentionArena {
  T* next = nullptr;
  int64_t used = 0;

  // `count` elements for the rows from `first` on: the pointer takes row numbers of `width`.
  HEADLOOM_INLINE T* take(int64_t count, int64_t first = 0, int64_t width = 1) {
    constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
    T* begin = next == nullptr ? nullptr : next + used - first * width;
    used += (count * width + kLine - 1) / kLine * kLine;
    return begin;
  }
};

// Memory of a level for key rows [key_begin, key_end) and query rows [query_begin, query_end);
// `own` says that it holds rows of its own and not the inputs.
template <class T>
HEADLOOM_INLINE void h_attention_level(const HAttentionShape& s, bool backward, bool own,
                                       int64_t key_begin, int64_t key_end, int64_t query_begin,
                                       int64_t query_end, HAttentionLevel<T>& x,
                                       HAttentionArena<T>& arena) {
  const int64_t keys = key_end - key_begin, queries = query_end - query_begin;
  const bool has_queries = x.level == 0 || !s.fine;
  x.rows = s.rows(x.level);
  x.key_count = arena.take(keys, key_begin);
  x.key_bias = arena.take(keys, key_begin);
  if (has_queries) x.query_count = arena.take(queries, query_begin);
  if (own) {
    x.k = arena.take(keys, key_begin, s.width);
    x.v = arena.take(keys, key_begin, s.value_width);
    x.k_stride = s.width;
    x.v_stride = s.value_width;
    if (has_queries) x.q = arena.take(queries, query_begin, s.width);
    x.q_stride = s.width;
  }
  const int64_t lanes =
      (queries + kHAttentionMaxLanes - 1) / kHAttentionMaxLanes * kHAttentionMaxLanes;
  if (has_queries && x.level > 0) {
    if (!backward) x.state = arena.take(lanes, 0, s.value_width + 2);
    if (backward) x.grad_state = arena.take(lanes, 0, s.width);
  }
  if (!backward) return;
  x.key_share = arena.take(keys, key_begin);
  x.grad_k = arena.take(keys, key_begin, s.width);
  x.grad_v = arena.take(keys, key_begin, s.value_width);
  if (!has_queries) return;
  x.query_share = arena.take(queries, query_begin);
  x.least = arena.take(queries, query_begin);
  x.inner = arena.take(queries, query_begin);
  if (own) {
    x.grad = arena.take(queries, query_begin, s.value_width);
    x.grad_stride = s.value_width;
  }
}

// The levels from `stored` on.
template <class T>
HEADLOOM_INLINE int64_t h_attention_upper(const HAttentionShape& s, bool backward, T* buffer,
                                          HAttentionLevel<T>* levels) {
  HAttentionArena<T> arena{buffer};
  HAttentionLevel<T> unused;
  for (int l = s.stored; l < s.levels; ++l) {
    HAttentionLevel<T>& x = levels == nullptr ? unused : levels[l];
    x = {};
    x.level = l;
    h_attention_level(s, backward, true, 0, s.rows(l), 0, s.rows(l), x, arena);
  }
  return arena.used;
}

// The levels below `stored` around the chunk whose first token is `begin`, and what a tile needs.
template <class T>
struct HAttentionScratch {
  T *tile_q, *tile_grad;      // [D, lanes], [E, lanes]
  T *tile_out, *tile_grad_q;  // [lanes, E], [lanes, D]
};

template <class T>
HEADLOOM_INLINE int64_t h_attention_local(const HAttentionShape& s, bool backward, int64_t begin,
                                          T* buffer, HAttentionLevel<T>* levels,
                                          HAttentionScratch<T>& scratch) {
  HAttentionArena<T> arena{buffer};
  HAttentionLevel<T> unused;
  scratch.tile_q = arena.take(kHAttentionMaxLanes, 0, s.width);
  scratch.tile_grad = arena.take(kHAttentionMaxLanes, 0, s.value_width);
  scratch.tile_out = arena.take(kHAttentionMaxLanes, 0, s.value_width);
  scratch.tile_grad_q = arena.take(kHAttentionMaxLanes, 0, s.width);
  for (int l = 0; l < s.local_levels(); ++l) {
    HAttentionLevel<T>& x = levels == nullptr ? unused : levels[l];
    x = {};
    x.level = l;
    // The halo may reach before the first token: rows are counted, not touched.
    const int64_t first = (begin - s.halo_before) >> l, end = (begin + s.chunk + s.halo_after) >> l;
    h_attention_level(s, backward, true, first, end, begin >> l, (begin + s.chunk) >> l, x, arena);
  }
  return arena.used;
}

// Elements of accumulator_t<S> that one sequence, and one thread, need.
template <class T>
HEADLOOM_INLINE int64_t h_attention_upper_size(const HAttentionShape& s, bool backward) {
  return h_attention_upper<T>(s, backward, nullptr, nullptr);
}
template <class T>
HEADLOOM_INLINE int64_t h_attention_local_size(const HAttentionShape& s, bool backward) {
  HAttentionScratch<T> scratch;
  return h_attention_local<T>(s, backward, 0, nullptr, nullptr, scratch);
}

// Each works on a range of chunks, for which `local` has h_attention_local_size() elements.
template <class S, class T = accumulator_t<S>>
struct HAttentionKernels {
  // Rows of level `stored` and of those above it that do not reach beyond a chunk.
  void (*store)(const HAttentionProblem<S>&, int64_t first, int64_t last, T* local);
  // The other levels, and what the queries of all stored levels see.
  void (*upper)(const HAttentionProblem<S>&, T* local);
  void (*attend)(const HAttentionProblem<S>&, int64_t first, int64_t last, T* local);
};

// As above. gradients() reads the chunks beside its own and writes to its own alone, so that ranges
// may run at the same time.
template <class S, class T = accumulator_t<S>>
struct HAttentionGradKernels {
  void (*store)(const HAttentionGradProblem<S>&, int64_t first, int64_t last, T* local);
  void (*upper)(const HAttentionGradProblem<S>&, T* local);
  void (*gradients)(const HAttentionGradProblem<S>&, int64_t first, int64_t last, T* local);
};

struct HAttentionTable {
  HAttentionKernels<double> f64;
  HAttentionKernels<float> f32;
  HAttentionKernels<BFloat16> bf16;
  HAttentionKernels<Half> f16;
};
struct HAttentionGradTable {
  HAttentionGradKernels<double> f64;
  HAttentionGradKernels<float> f32;
  HAttentionGradKernels<BFloat16> bf16;
  HAttentionGradKernels<Half> f16;
};

const HAttentionTable& h_attention_table(Isa isa);
const HAttentionGradTable& h_attention_grad_table(Isa isa);

}  // namespace headloom::kernels

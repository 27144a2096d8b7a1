#pragma once

#include "headloom/kernels/attention_table.h"
#include "headloom/kernels/gemm_tile.h"
#include "headloom/kernels/philox_lanes.h"
#include "headloom/kernels/row_softmax.h"
#include "headloom/kernels/transpose.h"

// What the forward and backward passes of attention.h share. Tiles of logits are [keys, queries]
// with a row of kQueryTile elements for each key; their last lanes may hold anything when a tile of
// queries is not full.
namespace headloom::kernels::HEADLOOM_ISA {

// Lanes in use come in steps of one panel of gemm_tile.h.
template <class T>
inline constexpr int64_t kLaneStep = kBlockVectors* kWidth<T>;

// A state of the softmax spans as many vectors as registers allow: its exponentials then overlap.
// It may look at lanes that are not in use, whose sums nothing reads.
#if defined(HEADLOOM_ISA_avx512)
inline constexpr int kSoftmaxVectors = 4;
#else
inline constexpr int kSoftmaxVectors = 2;
#endif
template <class T>
using Softmax = OnlineSoftmax<T, kSoftmaxVectors>;
template <class T>
inline constexpr int64_t kStates = kQueryTile / Softmax<T>::kQueries;  // of a tile

template <class T>
HEADLOOM_INLINE int64_t lanes_for(int64_t queries) {
  return (queries + kLaneStep<T> - 1) / kLaneStep<T> * kLaneStep<T>;
}

HEADLOOM_INLINE int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

// Hands out pieces of a thread's memory, each on a cache line of its own. Without memory it counts.
template <class T>
struct Space {
  T* base;
  int64_t used = 0;

  HEADLOOM_INLINE T* take(int64_t count) {
    constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
    T* piece = base ? base + used : nullptr;
    used += (count + kLine - 1) / kLine * kLine;
    return piece;
  }
};

// Rows in the type of sums.
template <class T>
struct Rows {
  const T* data;
  int64_t stride;
  HEADLOOM_INLINE const T* at(int64_t row) const { return data + row * stride; }
};

template <class From, class To>
void copy_rows(const From* from, int64_t from_stride, int64_t rows, int64_t width, To* to,
               int64_t to_stride) {
  for (int64_t i = 0; i < rows; ++i) {
    for_each_vector<accumulator_t<From>>(width, [&](int64_t j, auto count) HEADLOOM_INLINE_LAMBDA {
      store_at(to + i * to_stride + j, count, load_at(from + i * from_stride + j, count));
    });
  }
}

template <class T>
void add_rows(const T* from, int64_t from_stride, int64_t rows, int64_t width, T* to,
              int64_t to_stride) {
  for (int64_t i = 0; i < rows; ++i) {
    for_each_vector<T>(width, [&](int64_t j, auto count) HEADLOOM_INLINE_LAMBDA {
      T* sum = to + i * to_stride + j;
      store_at(sum, count, load_at(sum, count) + load_at(from + i * from_stride + j, count));
    });
  }
}

template <class T>
HEADLOOM_INLINE void fill(T* to, int64_t count, T value) {
  for_each_vector<T>(count, [&](int64_t i, auto lanes)
                                HEADLOOM_INLINE_LAMBDA { store_at(to + i, lanes, set1(value)); });
}

// Whether the keys and values of a head are copied together: when they are in another type, or when
// several tiles of queries read rows that lie apart (which then share few sets of the cache).
template <class S>
HEADLOOM_INLINE bool gathers(const HeadRows<const S>& x, int64_t width, int64_t queries) {
  return sizeof(S) != sizeof(accumulator_t<S>) || (x.row_stride != width && queries > kQueryTile);
}

struct Longest {
  int64_t queries = 0, keys = 0;
};
template <class S>
HEADLOOM_INLINE Longest longest_of(const AttentionArgs<S>& args) {
  Longest most;
  for (int64_t i = 0; i < args.sequence_count; ++i) {
    const AttentionSequence& s = args.sequences[i];
    most.queries = s.queries < most.queries ? most.queries : s.queries;
    most.keys = s.keys < most.keys ? most.keys : s.keys;
  }
  return most;
}
template <class S>
HEADLOOM_INLINE int64_t gathered_size(const HeadRows<const S>& x, int64_t width,
                                      const Longest& longest) {
  return gathers(x, width, longest.queries) ? longest.keys * width : 0;
}

// Rows [begin, begin + count) of a head, copied to `gathered` when that is worth it.
template <class S>
Rows<accumulator_t<S>> head_rows(const HeadRows<const S>& x, int64_t batch, int64_t head,
                                 int64_t begin, int64_t count, int64_t width, bool gather,
                                 accumulator_t<S>* gathered) {
  const S* from = x.at(batch, head, begin);
  if constexpr (sizeof(S) == sizeof(accumulator_t<S>)) {
    if (!gather) return {from, x.row_stride};
  }
  copy_rows(from, x.row_stride, count, width, gathered, width);
  return {gathered, width};
}

// One block of keys as one tile of queries sees it.
struct Block {
  int64_t key, keys;       // of the sequence
  const uint8_t* padding;  // of its keys, or nullptr
  int64_t hidden;          // lanes in front that come before the block's first key; may be < 0

  HEADLOOM_INLINE bool all_padding() const {
    if (!padding) return false;
    int64_t i = 0;
    while (i < keys && padding[i]) ++i;
    return i == keys;
  }
};

// Puts `value` where queries do not see keys.
template <class T>
void hide(const Block& block, int64_t lanes, T value, T* tile) {
  if (!block.padding && block.hidden + block.keys <= 1) return;
  const Vec<T> values = set1(value);
  for (int64_t i = 0; i < block.keys; ++i) {
    const bool padded = block.padding && block.padding[i];
    const int64_t hidden = padded ? lanes : least(block.hidden + i, lanes);
    T* row = tile + i * kQueryTile;
    for (int64_t j = 0; j < hidden; j += kWidth<T>) {
      const int64_t left = least(hidden - j, kWidth<T>);
      store(row + j, select(first_lanes<T>(left), values, load(row + j)));
    }
  }
}

// One tile of queries of one head of one sequence.
struct TileAt {
  const AttentionSequence& sequence;
  int64_t head, query, rows;  // query: of the sequence
};

template <class S>
HEADLOOM_INLINE int64_t keys_seen(const AttentionArgs<S>& args, const TileAt& at) {
  const AttentionSequence& s = at.sequence;
  if (!args.causal) return s.keys;
  const int64_t seen = at.query + at.rows + s.keys - s.queries;
  return seen < 0 ? 0 : least(seen, s.keys);
}

template <class S>
HEADLOOM_INLINE Block block_at(const AttentionArgs<S>& args, const TileAt& at, int64_t key,
                               int64_t end) {
  const AttentionSequence& s = at.sequence;
  Block block{key, least(kKeyBlock, end - key), nullptr, -kKeyBlock};
  if (args.padding) {
    block.padding = args.padding + s.batch * args.padding_stride + s.key_begin + key;
  }
  if (args.causal) block.hidden = key - (s.keys - s.queries) - at.query;
  return block;
}

// Calls body(block) for the blocks of keys in [begin, end) that a tile of queries sees any of.
template <class S, class Body>
HEADLOOM_INLINE void for_each_block(const AttentionArgs<S>& args, const TileAt& at, int64_t begin,
                                    int64_t end, const Body& body) {
  const int64_t seen = least(end, keys_seen(args, at));
  for (int64_t key = begin; key < seen; key += kKeyBlock) {
    const Block block = block_at(args, at, key, seen);
    if (!block.all_padding()) body(block);
  }
}

template <class S>
HEADLOOM_INLINE DropoutTile dropout_at(const AttentionArgs<S>& args, const TileAt& at,
                                       int64_t key) {
  const AttentionSequence& s = at.sequence;
  const int64_t row = (s.batch * args.heads + at.head) * s.queries + at.query;
  return {s.seed, static_cast<uint32_t>(drop_threshold(args.dropout_p)), row * s.keys + key,
          s.keys};
}

// tile *= the dropout mask, [keys, lanes]
template <class T>
void multiply_tile(const T* mask, int64_t keys, int64_t lanes, T* tile) {
  for (int64_t i = 0; i < keys; ++i) {
    for (int64_t j = 0; j < lanes; j += kWidth<T>) {
      T* element = tile + i * kQueryTile + j;
      store(element, load(element) * load(mask + i * kQueryTile + j));
    }
  }
}

// tile[key, query] = log2(e) * bias[query, key]
template <class S>
void bias_tile(const AttentionArgs<S>& args, const TileAt& at, const Block& block,
               accumulator_t<S>* tile) {
  using T = accumulator_t<S>;
  const HeadBias<S>& bias = args.bias;
  const S* from = bias.at(at.sequence.batch, at.head, at.query, block.key);
  if (bias.query_stride != 0 && bias.key_stride == 1) {
    transpose_tile(from, bias.query_stride, at.rows, block.keys, tile, kQueryTile, T(kLog2E));
    return;
  }
  for (int64_t i = 0; i < block.keys; ++i) {
    for (int64_t j = 0; j < at.rows; ++j) {
      const S value = from[j * bias.query_stride + i * bias.key_stride];
      tile[i * kQueryTile + j] = static_cast<T>(value) * T(kLog2E);
    }
  }
}

// A tile of queries in the three forms in which products take it.
template <class T>
struct QueryTile {
  T* rows;    // [queries, D] as they are
  T* folded;  // [queries, D] times F; the same as rows without F
  T* lanes;   // [D, kQueryTile], folded, times the factor of base-2 logits

  template <class S>
  QueryTile(const AttentionArgs<S>& args, Space<T>& space)
      : rows(space.take(kQueryTile * args.width)),
        folded(args.fold ? space.take(kQueryTile * args.width) : rows),
        lanes(space.take(kQueryTile * args.width)) {}
};

// to[width, kQueryTile] = factor * transpose of from[rows, width], zeros in the other lanes.
template <class T>
void transpose_queries(Rows<T> from, int64_t rows, int64_t width, T* to, T factor) {
  if (rows < kQueryTile) fill(to, width * kQueryTile, T(0));
  transpose_tile(from.data, from.stride, rows, width, to, kQueryTile, factor);
}

template <class S>
void load_queries(const AttentionArgs<S>& args, const TileAt& at,
                  const QueryTile<accumulator_t<S>>& tile) {
  using T = accumulator_t<S>;
  const AttentionSequence& s = at.sequence;
  const int64_t D = args.width;
  copy_rows(args.q.at(s.batch, at.head, s.query_begin + at.query), args.q.row_stride, at.rows, D,
            tile.rows, D);
  if (args.fold) {
    gemm_tile(
        GemmArgs<T>{at.rows, D, D, tile.rows, D, 1, args.fold + at.head * D * D, D, tile.folded, D},
        Assign{});
  }
  transpose_queries<T>({tile.folded, D}, at.rows, D, tile.lanes,
                       static_cast<T>(args.scale * kLog2E));
}

// Logits [keys, kQueryTile] of one block to weights; out [Dv, kQueryTile] to what it is worth
// beside them.
template <class T>
HEADLOOM_INLINE void absorb_block(Softmax<T>* softmax, int64_t keys, int64_t lanes, T* logits,
                                  int64_t value_width, T* out) {
  for (int64_t lane = 0; lane < lanes; lane += Softmax<T>::kQueries) {
    Softmax<T>& state = softmax[lane / Softmax<T>::kQueries];
    if (state.absorb(logits + lane, keys, kQueryTile)) {
      state.rescale(out + lane, value_width, kQueryTile);
    }
  }
}

// What a tile of queries has gathered, out [Dv, kQueryTile], to the tensors; out_rows has its size.
template <class S>
void store_outputs(const AttentionArgs<S>& args, const TileAt& at,
                   Softmax<accumulator_t<S>>* softmax, accumulator_t<S>* out,
                   accumulator_t<S>* out_rows) {
  using T = accumulator_t<S>;
  const AttentionSequence& s = at.sequence;
  const int64_t Dv = args.value_width, row = s.query_begin + at.query;
  T* log2_sum = args.log2_sum.at(s.batch, at.head, row);
  for (int64_t lane = 0; lane < at.rows; lane += Softmax<T>::kQueries) {
    Softmax<T>& state = softmax[lane / Softmax<T>::kQueries];
    state.normalize(out + lane, Dv, kQueryTile);
    state.log2_sums(log2_sum + lane, least(Softmax<T>::kQueries, at.rows - lane));
  }
  transpose_tile(out, kQueryTile, Dv, at.rows, out_rows, Dv);
  copy_rows(out_rows, Dv, at.rows, Dv, args.out.at(s.batch, at.head, row), args.out.row_stride);
}

}  // namespace headloom::kernels::HEADLOOM_ISA

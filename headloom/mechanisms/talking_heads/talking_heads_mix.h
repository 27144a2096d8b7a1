#pragma once

#include "headloom/kernels/head_mix.h"
#include "headloom/kernels/transpose.h"
#include "headloom/mechanisms/talking_heads/talking_heads_kernels.h"

// Head mixing on tiles: the tables of weights that a tile needs, in both directions, and the
// gradients of the weights. Shared by the forward and the backward kernels.
namespace headloom::kernels::HEADLOOM_ISA {

// Hands out a worker's memory. Without memory it counts.
template <class T>
struct Arena {
  T* base;
  int64_t used = 0;

  T* take(int64_t count) {
    constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
    T* const p = base != nullptr ? base + used : nullptr;
    used += (count + kLine - 1) / kLine * kLine;
    return p;
  }
  // Memory for numbers of another type, no larger than T.
  template <class M>
  M* take_for(int64_t count) {
    constexpr int64_t kEach = static_cast<int64_t>(sizeof(T) / sizeof(M));
    return reinterpret_cast<M*>(take((count + kEach - 1) / kEach));
  }
};

// [heads, rows, lanes]. Heads are not a multiple of 4 KiB apart: they would share cache sets.
template <class T>
struct Tile {
  T* data;
  int64_t head_stride;

  static constexpr int64_t kPad = 2 * kVectorBytes / static_cast<int64_t>(sizeof(T));
  HEADLOOM_INLINE T* head(int64_t h) const { return data + h * head_stride; }
};

template <class T>
HEADLOOM_INLINE void fill(T* p, int64_t count, T value) {
  for_each_vector<T>(count, [&](int64_t i, auto some)
                                HEADLOOM_INLINE_LAMBDA { store_at(p + i, some, set1(value)); });
}

template <class S, class T>
HEADLOOM_INLINE void convert_row(const S* from, T* to, int64_t count) {
  for_each_vector<T>(count, [&](int64_t i, auto some) HEADLOOM_INLINE_LAMBDA {
    store_at(to + i, some, load_at(from + i, some));
  });
}

// The weights of one mixture for the tile at hand.
template <class S>
struct MixWeights {
  using T = accumulator_t<S>;

  const HeadMixing<S>& mixing;
  int64_t queries, keys, lanes;  // Tq, Tk, lanes of a tile
  bool identity;
  int64_t heads_in, heads_out;  // of all groups
  // [groups, in, out], [groups, out, in]; with by_key a matrix a key, else one for all.
  T *shared, *forward, *backward;
  T* by_lane;  // [groups, in, out, lanes] or nullptr

  MixWeights(const HeadMixing<S>& given, int64_t all_queries, int64_t all_keys,
             const TalkingHeadsPlan& plan, bool with_backward, Arena<T>& arena)
      : mixing(given),
        queries(all_queries),
        keys(all_keys),
        lanes(plan.tile_queries),
        identity(given.weights == nullptr),
        heads_in(given.groups * given.in),
        heads_out(given.groups * given.out) {
    const int64_t size = identity ? 0 : given.size();
    const int64_t matrices = given.by_key != nullptr ? plan.tile_keys : 1;
    shared = given.by_key != nullptr ? arena.take(size) : nullptr;
    forward = arena.take(matrices * size);
    backward = with_backward ? arena.take(matrices * size) : nullptr;
    by_lane = given.by_query != nullptr ? arena.take(size * lanes) : nullptr;
  }

  HEADLOOM_INLINE int64_t row_stride() const {
    return mixing.by_key != nullptr ? mixing.size() : 0;
  }

  void turn(const T* from, T* to) const {
    const int64_t in = mixing.in, out = mixing.out;
    for (int64_t g = 0; g < mixing.groups; ++g) {
      for (int64_t i = 0; i < in; ++i) {
        for (int64_t o = 0; o < out; ++o) {
          to[(g * out + o) * in + i] = from[(g * in + i) * out + o];
        }
      }
    }
  }

  void begin_queries(const AttentionSegment& segment, int64_t query, int64_t count) const {
    if (identity) return;
    const int64_t size = mixing.size();
    convert_row(mixing.weights, shared != nullptr ? shared : forward, size);
    if (shared == nullptr && backward != nullptr) turn(forward, backward);
    if (by_lane == nullptr) return;
    if (count < lanes) fill(by_lane, size * lanes, T(0));
    const S* rows =
        mixing.by_query + (segment.batch * queries + segment.query_begin + query) * size;
    transpose_tile(rows, size, count, size, by_lane, lanes);
  }

  void begin_keys(const AttentionSegment& segment, int64_t key, int64_t rows) const {
    if (identity || shared == nullptr) return;
    const int64_t size = mixing.size();
    const S* own = mixing.by_key + (segment.batch * keys + segment.key_begin + key) * size;
    for (int64_t r = 0; r < rows; ++r, own += size) {
      for_each_vector<T>(size, [&](int64_t i, auto some) HEADLOOM_INLINE_LAMBDA {
        store_at(forward + r * size + i, some, load_at(shared + i, some) + load_at(own + i, some));
      });
      if (backward != nullptr) turn(forward + r * size, backward + r * size);
    }
  }

  // y = mixture of factors[in, lanes] x; factors may be nullptr.
  void mix(Tile<T> x, Tile<T> y, int64_t rows, const T* factors) const {
    if (identity) return copy(x, y, rows, factors);
    HeadMixArgs<T> g{mixing.in,     mixing.out, rows,          lanes,   nullptr,
                     x.head_stride, nullptr,    y.head_stride, nullptr, row_stride()};
    g.lane_in_stride = mixing.out;
    g.lane_out_stride = 1;
    const int64_t size = mixing.in * mixing.out;
    for (int64_t group = 0; group < mixing.groups; ++group) {
      g.x = x.head(group * mixing.in);
      g.y = y.head(group * mixing.out);
      g.weights = forward + group * size;
      g.lane_weights = by_lane != nullptr ? by_lane + group * size * lanes : nullptr;
      g.factors = factors != nullptr ? factors + group * mixing.in * lanes : nullptr;
      mix_heads(g);
    }
  }

  // The gradient of x from that of y.
  void mix_back(Tile<T> grad_y, Tile<T> grad_x, int64_t rows) const {
    if (identity) return copy(grad_y, grad_x, rows, nullptr);
    HeadMixArgs<T> g{mixing.out, mixing.in,          rows,    lanes,
                     nullptr,    grad_y.head_stride, nullptr, grad_x.head_stride,
                     nullptr,    row_stride()};
    g.lane_in_stride = 1;
    g.lane_out_stride = mixing.out;
    const int64_t size = mixing.in * mixing.out;
    for (int64_t group = 0; group < mixing.groups; ++group) {
      g.x = grad_y.head(group * mixing.out);
      g.y = grad_x.head(group * mixing.in);
      g.weights = backward + group * size;
      g.lane_weights = by_lane != nullptr ? by_lane + group * size * lanes : nullptr;
      mix_heads(g);
    }
  }

  void copy(Tile<T> x, Tile<T> y, int64_t rows, const T* factors) const {
    for (int64_t h = 0; h < heads_in; ++h) {
      for (int64_t at = 0; at < rows * lanes; at += kWidth<T>) {
        const Vec<T> value = load(x.head(h) + at);
        store(y.head(h) + at,
              factors != nullptr ? value * load(factors + h * lanes + at % lanes) : value);
      }
    }
  }
};

// The gradients of one mixture's weights.
template <class S>
struct MixSums {
  using T = accumulator_t<S>;

  const MixWeights<S>& weights;
  bool by_query, by_key;
  T* sums;  // [size, lanes] with by_query, else [size, kWidth]
  T* row;   // [size, kWidth], by_key only

  MixSums(const MixWeights<S>& of, Arena<T>& arena)
      : weights(of), by_query(of.mixing.by_query != nullptr), by_key(of.mixing.by_key != nullptr) {
    sums = arena.take(of.identity ? 0 : of.mixing.size() * stride());
    row = arena.take(by_key ? (of.mixing.size() + kWidth<T>)*kWidth<T> : 0);
  }

  HEADLOOM_INLINE int64_t stride() const { return by_query ? weights.lanes : kWidth<T>; }

  void begin_queries() const {
    if (!weights.identity) fill(sums, count(), T(0));
  }

  // With x and the gradient of y of some keys; key_sums [rows, size] is for by_key.
  void add(Tile<T> x, Tile<T> grad_y, int64_t rows, T* key_sums, bool fresh) const {
    if (weights.identity) return;
    const int64_t vectors = weights.lanes / kWidth<T>;
    if (!by_query) {
      outer(x, grad_y, 0, rows * vectors, kWidth<T>, sums, kWidth<T>);
    } else {
      for (int64_t lane = 0; lane < weights.lanes; lane += kWidth<T>) {
        outer(x, grad_y, lane, rows, weights.lanes, sums + lane, weights.lanes);
      }
    }
    if (!by_key) return;
    const int64_t size = weights.mixing.size();
    for (int64_t r = 0; r < rows; ++r) {
      fill(row, (size + kWidth<T>)*kWidth<T>, T(0));
      outer(x, grad_y, r * weights.lanes, vectors, kWidth<T>, row, kWidth<T>);
      fold_row(key_sums + r * size, fresh);
    }
  }

  HEADLOOM_INLINE int64_t count() const { return weights.mixing.size() * stride(); }

  // Adds to total [size].
  void add_to(double* total) const {
    if (weights.identity) return;
    for (int64_t i = 0; i < weights.mixing.size(); ++i) {
      Vec<T> sum = zero<T>();
      for (int64_t lane = 0; lane < stride(); lane += kWidth<T>) {
        sum = sum + load(sums + i * stride() + lane);
      }
      total[i] += static_cast<double>(sum_lanes(sum));
    }
  }
  // The gradients of the first queries of the tile: rows [queries, size] times factor.
  void write_rows(S* rows, int64_t queries, T factor) const {
    const int64_t size = weights.mixing.size();
    transpose_tile(sums, stride(), size, queries, rows, size, factor);
  }

 private:
  void outer(Tile<T> x, Tile<T> grad_y, int64_t offset, int64_t vectors, int64_t step, T* to,
             int64_t to_stride) const {
    const int64_t in = weights.mixing.in, out = weights.mixing.out;
    for (int64_t g = 0; g < weights.mixing.groups; ++g) {
      outer_heads(HeadOuterArgs<T>{in, out, vectors, step, x.head(g * in) + offset, x.head_stride,
                                   grad_y.head(g * out) + offset, grad_y.head_stride,
                                   to + g * in * out * to_stride, to_stride});
    }
  }

  // Sums of the lanes of `row`, kWidth of them at a time.
  void fold_row(T* to, bool fresh) const {
    for_each_vector<T>(weights.mixing.size(), [&](int64_t i, auto some) HEADLOOM_INLINE_LAMBDA {
      Vec<T> square[kWidth<T>];
      unroll<kWidth<T>>(
          [&](auto j) HEADLOOM_INLINE_LAMBDA { square[j] = load(row + (i + j) * kWidth<T>); });
      transpose(square);
      Vec<T> sum = fresh ? zero<T>() : load_at(to + i, some);
      unroll<kWidth<T>>([&](auto j) HEADLOOM_INLINE_LAMBDA { sum = sum + square[j]; });
      store_at(to + i, some, sum);
    });
  }
};

}  // namespace headloom::kernels::HEADLOOM_ISA

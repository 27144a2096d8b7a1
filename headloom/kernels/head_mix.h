#pragma once

#include "headloom/kernels/gemm_tile.h"

// Products over the heads of tiles that lie as [heads, rows, lanes], queries in the lanes: a
// mixture of heads, and the gradient of its weights. lanes is a multiple of 2 kWidth.
namespace headloom::kernels::HEADLOOM_ISA {

// y[o, r, l] = sum_i (weights[r, i, o] + lane_weights[i, o, l]) factors[i, l] x[i, r, l]
template <class T>
struct HeadMixArgs {
  int64_t in, out;  // heads
  int64_t rows, lanes;
  const T* x;  // [in, rows, lanes]
  int64_t x_stride;
  T* y;  // [out, rows, lanes], apart from x
  int64_t y_stride;
  const T* weights;                 // [rows, in, out]
  int64_t row_stride;               // 0: every row has the same weights
  const T* lane_weights = nullptr;  // [in, out, lanes], strides in lanes; nullptr: zeros
  int64_t lane_in_stride = 0, lane_out_stride = 0;
  const T* factors = nullptr;  // [in, lanes]; nullptr: ones
};

// Outputs that share each vector of x, two vectors of each in registers.
#if defined(HEADLOOM_ISA_avx512)
inline constexpr int kMixOutputs = 12;
#elif defined(HEADLOOM_ISA_avx2)
inline constexpr int kMixOutputs = 6;
#else
inline constexpr int kMixOutputs = 4;
#endif

// Outputs first .. first + kOut - 1.
template <int kOut, bool kByLane, bool kScaled, class T>
void mix_some_heads(const HeadMixArgs<T>& g, int64_t first) {
  for (int64_t row = 0; row < g.rows; ++row) {
    for (int64_t lane = 0; lane < g.lanes; lane += 2 * kWidth<T>) {
      const int64_t at = row * g.lanes + lane;
      const T* x_at = g.x + at;
      const T* weights = g.weights + row * g.row_stride + first;
      Vec<T> sum[kOut][2];
      unroll<kOut>([&](auto o) HEADLOOM_INLINE_LAMBDA { sum[o][0] = sum[o][1] = zero<T>(); });
      for (int64_t i = 0; i < g.in; ++i) {
        Vec<T> x[2] = {load(x_at), load(x_at + kWidth<T>)};
        if constexpr (kScaled) {
          const T* factors = g.factors + i * g.lanes + lane;
          x[0] = x[0] * load(factors);
          x[1] = x[1] * load(factors + kWidth<T>);
        }
        unroll<kOut>([&](auto o) HEADLOOM_INLINE_LAMBDA {
          const Vec<T> weight = broadcast(weights + o);
          if constexpr (kByLane) {
            const T* own = g.lane_weights + lane +
                           (i * g.lane_in_stride + (first + o) * g.lane_out_stride) * g.lanes;
            sum[o][0] = fma(weight + load(own), x[0], sum[o][0]);
            sum[o][1] = fma(weight + load(own + kWidth<T>), x[1], sum[o][1]);
          } else {
            sum[o][0] = fma(weight, x[0], sum[o][0]);
            sum[o][1] = fma(weight, x[1], sum[o][1]);
          }
        });
        x_at += g.x_stride;
        weights += g.out;
      }
      unroll<kOut>([&](auto o) HEADLOOM_INLINE_LAMBDA {
        T* y = g.y + (first + o) * g.y_stride + at;
        store(y, sum[o][0]);
        store(y + kWidth<T>, sum[o][1]);
      });
    }
  }
}

// The sizes of groups of outputs that are compiled, each at most kMixOutputs.
template <bool kByLane, bool kScaled, class T>
int64_t mix_next_heads(const HeadMixArgs<T>& g, int64_t first, int64_t limit) {
  int64_t done = 0;
  const auto offer = [&](auto outputs) HEADLOOM_INLINE_LAMBDA {
    if constexpr (outputs <= kMixOutputs) {
      if (done == 0 && outputs <= limit) {
        mix_some_heads<outputs, kByLane, kScaled>(g, first);
        done = outputs;
      }
    }
  };
  offer(Index<12>{});
  offer(Index<8>{});
  offer(Index<6>{});
  offer(Index<4>{});
  offer(Index<3>{});
  offer(Index<2>{});
  offer(Index<1>{});
  return done;
}

template <bool kByLane, bool kScaled, class T>
void mix_heads_in_groups(const HeadMixArgs<T>& g) {
  for (int64_t first = 0; first < g.out;) {
    const int64_t left = g.out - first;
    // 16 heads are two groups of 8, not one of 12 and one of 4, whose few sums wait for each other.
    const int64_t limit = left % 12 != 0 && left % 8 == 0 && left < 20 ? 8 : left;
    first += mix_next_heads<kByLane, kScaled>(g, first, limit);
  }
}

template <class T>
void mix_heads(const HeadMixArgs<T>& g) {
  if (g.lane_weights != nullptr) {
    g.factors != nullptr ? mix_heads_in_groups<true, true>(g) : mix_heads_in_groups<true, false>(g);
  } else {
    g.factors != nullptr ? mix_heads_in_groups<false, true>(g)
                         : mix_heads_in_groups<false, false>(g);
  }
}

// sums[i, o] += sum_n x[i, n] y[o, n] lane by lane, n over `vectors` vectors that begin `step`
// elements apart; each sums[i, o] is a vector.
template <class T>
struct HeadOuterArgs {
  int64_t in, out;
  int64_t vectors, step;
  const T* x;
  int64_t x_stride;  // from head to head
  const T* y;
  int64_t y_stride;
  T* sums;  // [in, out] vectors, sums_stride elements apart
  int64_t sums_stride;
};

#if defined(HEADLOOM_ISA_avx512)
inline constexpr int kOuterBlock = 4;
#else
inline constexpr int kOuterBlock = 3;
#endif

template <int kIn, int kOut, class T>
HEADLOOM_INLINE void outer_block(const HeadOuterArgs<T>& g, int64_t i, int64_t o, int64_t begin,
                                 int64_t end) {
  Vec<T> sum[kIn][kOut];
  T* sums = g.sums + (i * g.out + o) * g.sums_stride;
  const auto each = [&](const auto& body) HEADLOOM_INLINE_LAMBDA {
    unroll<kIn>([&](auto a) HEADLOOM_INLINE_LAMBDA {
      unroll<kOut>([&](auto b) HEADLOOM_INLINE_LAMBDA {
        body(sum[a][b], sums + (a * g.out + b) * g.sums_stride);
      });
    });
  };
  each([](Vec<T>& value, const T* p) HEADLOOM_INLINE_LAMBDA { value = load(p); });
  for (int64_t n = begin; n < end; ++n) {
    const T* x = g.x + i * g.x_stride + n * g.step;
    const T* y = g.y + o * g.y_stride + n * g.step;
    Vec<T> y_row[kOut];
    unroll<kOut>([&](auto b) HEADLOOM_INLINE_LAMBDA { y_row[b] = load(y + b * g.y_stride); });
    unroll<kIn>([&](auto a) HEADLOOM_INLINE_LAMBDA {
      const Vec<T> x_row = load(x + a * g.x_stride);
      unroll<kOut>([&](auto b)
                       HEADLOOM_INLINE_LAMBDA { sum[a][b] = fma(x_row, y_row[b], sum[a][b]); });
    });
  }
  each([](const Vec<T>& value, T* p) HEADLOOM_INLINE_LAMBDA { store(p, value); });
}

// So many streams are more than the processor fetches ahead by itself.
template <class T>
HEADLOOM_INLINE void prefetch_heads(const HeadOuterArgs<T>& g, int64_t begin, int64_t end) {
  for (int64_t n = begin; n < end; ++n) {
    for (int64_t i = 0; i < g.in; ++i) __builtin_prefetch(g.x + i * g.x_stride + n * g.step);
    for (int64_t o = 0; o < g.out; ++o) __builtin_prefetch(g.y + o * g.y_stride + n * g.step);
  }
}

template <class T>
void outer_heads(const HeadOuterArgs<T>& g) {
  // So many vectors of two dozen heads stay in the first-level cache for all blocks.
  constexpr int64_t kChunk = 16;
  for (int64_t begin = 0; begin < g.vectors; begin += kChunk) {
    const int64_t end = begin + kChunk < g.vectors ? begin + kChunk : g.vectors;
    prefetch_heads(g, end, end + kChunk < g.vectors ? end + kChunk : g.vectors);
    for (int64_t i = 0; i < g.in; i += kOuterBlock) {
      const int64_t some_in = g.in - i < kOuterBlock ? g.in - i : kOuterBlock;
      for (int64_t o = 0; o < g.out; o += kOuterBlock) {
        const int64_t some_out = g.out - o < kOuterBlock ? g.out - o : kOuterBlock;
        with_rows<kOuterBlock>(some_in, [&](auto rows) HEADLOOM_INLINE_LAMBDA {
          with_rows<kOuterBlock>(some_out, [&](auto columns) HEADLOOM_INLINE_LAMBDA {
            outer_block<rows, columns>(g, i, o, begin, end);
          });
        });
      }
    }
  }
}

}  // namespace headloom::kernels::HEADLOOM_ISA

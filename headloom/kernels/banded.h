#pragma once

#include "headloom/kernels/stream.h"

// Products with band matrices, the band given by its weights: each output row is a weighted sum of
// `taps` successive rows of X,
//
//   Y[i, :] = start + sum_{k < taps} W(i, k) X[i + k, :]
//
// for one panel of columns. A block of kBandRows outputs stays in registers while the rows of X go
// by, each loaded once for all the outputs that it reaches. Only rows that a tap reads are touched:
// a NaN elsewhere stays where it is.
namespace headloom::kernels::HEADLOOM_ISA {

inline constexpr int kBandVectors = 2;  // of a full panel
#if defined(HEADLOOM_ISA_avx512)
inline constexpr int kBandRows = 8;
#else
inline constexpr int kBandRows = 4;  // 16 registers
#endif

// How the weights of a block lie, w[r * w_row + i * w_output] being the one that row r of X has in
// output i, r = i + k.
enum class BandWeights {
  kShared,       // w[k]: w_row 1, w_output -1
  kPerLane,      // w[k, panel]: a vector each, the panel's width for 1
  kPositions,    // w[k, 16 positions]: w_row 16, w_output -15; blocks follow each other
  kPerPosition,  // any strides
};
inline constexpr int64_t kBandPositions = 16;

// Blocks of outputs down a panel, S the storage type of X and Y. Strides count elements.
template <class S>
struct BandArgs {
  using T = accumulator_t<S>;
  int64_t taps, blocks;
  const S* x;  // [blocks * kBandRows + taps - 1, panel]
  int64_t x_stride;
  const T* w;
  int64_t w_row, w_output, w_block;  // of kPerPosition; w_block: from block to block
  const T* start;                    // [panel]
  S* y;                              // [blocks * kBandRows, panel]
  int64_t y_stride;
  bool streamed = false;  // y bypasses the caches; see can_stream()
  // Memory that will be needed soon, fetched while this is computed: as much as Y, or nullptr. In
  // the order of its addresses, because rows of a panel are far apart and memory is slow in such
  // steps.
  const char* ahead[2] = {};
};

// Strides of the weights, known at compile time where the layout says so.
template <BandWeights kWeights, int kVectors, class T>
struct WeightStrides {
  static constexpr int64_t kUnit = kWeights == BandWeights::kPerLane ? kVectors * kWidth<T> : 1;
  template <class S>
  HEADLOOM_INLINE explicit WeightStrides(const BandArgs<S>&) {}
  HEADLOOM_INLINE constexpr int64_t row() const { return kUnit; }
  HEADLOOM_INLINE constexpr int64_t output() const { return -kUnit; }
  HEADLOOM_INLINE constexpr int64_t block() const { return 0; }
};
template <int kVectors, class T>
struct WeightStrides<BandWeights::kPositions, kVectors, T> {
  template <class S>
  HEADLOOM_INLINE explicit WeightStrides(const BandArgs<S>&) {}
  HEADLOOM_INLINE constexpr int64_t row() const { return kBandPositions; }
  HEADLOOM_INLINE constexpr int64_t output() const { return 1 - kBandPositions; }
  HEADLOOM_INLINE constexpr int64_t block() const { return kBandRows; }
};
template <int kVectors, class T>
struct WeightStrides<BandWeights::kPerPosition, kVectors, T> {
  int64_t row_stride, output_stride, block_stride;
  template <class S>
  HEADLOOM_INLINE explicit WeightStrides(const BandArgs<S>& args)
      : row_stride(args.w_row), output_stride(args.w_output), block_stride(args.w_block) {}
  HEADLOOM_INLINE int64_t row() const { return row_stride; }
  HEADLOOM_INLINE int64_t output() const { return output_stride; }
  HEADLOOM_INLINE int64_t block() const { return block_stride; }
};

// One row of X into outputs kFirst to kEnd - 1.
template <int kFirst, int kEnd, BandWeights kWeights, int kVectors, class S, class T>
HEADLOOM_INLINE void band_row(const S* x, const T* w,
                              const WeightStrides<kWeights, kVectors, T>& strides,
                              Vec<T> (&sum)[kBandRows][kVectors]) {
  Vec<T> row[kVectors];
  unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA { row[j] = load(x + j * kWidth<T>); });
  unroll<kEnd - kFirst>([&](auto index) HEADLOOM_INLINE_LAMBDA {
    constexpr int i = kFirst + index;
    const T* weight = w + i * strides.output();
    if constexpr (kWeights == BandWeights::kPerLane) {
      unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
        sum[i][j] = fma(load(weight + j * kWidth<T>), row[j], sum[i][j]);
      });
    } else {
      const Vec<T> factor = broadcast(weight);
      unroll<kVectors>([&](auto j)
                           HEADLOOM_INLINE_LAMBDA { sum[i][j] = fma(factor, row[j], sum[i][j]); });
    }
  });
}

// Fewer taps than a block has rows: tap by tap, rows of X loaded again for each.
template <BandWeights kWeights, int kVectors, class S, class T>
HEADLOOM_INLINE void band_few_taps(const BandArgs<S>& args, const S* x, const T* w,
                                   const WeightStrides<kWeights, kVectors, T>& strides,
                                   Vec<T> (&sum)[kBandRows][kVectors]) {
  for (int64_t k = 0; k < args.taps; ++k) {
    unroll<kBandRows>([&](auto i) HEADLOOM_INLINE_LAMBDA {
      const T* weight = w + (i + k) * strides.row() + i * strides.output();
      unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
        const Vec<T> factor =
            kWeights == BandWeights::kPerLane ? load(weight + j * kWidth<T>) : set1(*weight);
        sum[i][j] = fma(factor, load(x + (i + k) * args.x_stride + j * kWidth<T>), sum[i][j]);
      });
    });
  }
}

// The rows of X in order: those that reach the first outputs only, those that reach all, those that
// reach the last only.
template <int kTaps, BandWeights kWeights, int kVectors, class S, class T>
HEADLOOM_INLINE void band_taps(const BandArgs<S>& args, const S* x, const T* w,
                               const WeightStrides<kWeights, kVectors, T>& strides,
                               Vec<T> (&sum)[kBandRows][kVectors]) {
  const int64_t x_stride = args.x_stride;
  const int64_t taps = kTaps != 0 ? kTaps : args.taps;
  constexpr int kEdge = kBandRows - 1;
  if constexpr (kTaps != 0 && kTaps < kEdge) {
    unroll<kTaps + kEdge>([&](auto r) HEADLOOM_INLINE_LAMBDA {
      constexpr int kFirst = r < kTaps ? 0 : r - kTaps + 1;
      constexpr int kEnd = r < kEdge ? r + 1 : kBandRows;
      band_row<kFirst, kEnd>(x, w, strides, sum);
      x += x_stride;
      w += strides.row();
    });
  } else if (kTaps == 0 && taps < kEdge) {
    band_few_taps(args, x, w, strides, sum);
  } else {
    unroll<kEdge>([&](auto r) HEADLOOM_INLINE_LAMBDA {
      band_row<0, r + 1>(x, w, strides, sum);
      x += x_stride;
      w += strides.row();
    });
    for (int64_t r = kEdge; r < taps; ++r) {
      band_row<0, kBandRows>(x, w, strides, sum);
      x += x_stride;
      w += strides.row();
    }
    unroll<kEdge>([&](auto r) HEADLOOM_INLINE_LAMBDA {
      band_row<r + 1, kBandRows>(x, w, strides, sum);
      x += x_stride;
      w += strides.row();
    });
  }
}

template <bool kStreamed, int kVectors, class S, class T>
HEADLOOM_INLINE void write_block(S* y, int64_t stride, const Vec<T> (&sum)[kBandRows][kVectors]) {
  unroll<kBandRows>([&](auto i) HEADLOOM_INLINE_LAMBDA {
    unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
      if constexpr (kStreamed) {
        stream(y + j * kWidth<T>, sum[i][j]);
      } else {
        store(y + j * kWidth<T>, sum[i][j]);
      }
    });
    y += stride;
  });
}

// A whole panel of kVectors vectors. kTaps is args.taps, or 0 when that is known at run time only.
template <class S, int kTaps, int kVectors, BandWeights kWeights>
void band_panel(const BandArgs<S>& args) {
  using T = accumulator_t<S>;
  constexpr int kBlockBytes = kBandRows * kVectors * kWidth<T> * static_cast<int>(sizeof(S));
  const WeightStrides<kWeights, kVectors, T> strides(args);
  Vec<T> start[kVectors];
  unroll<kVectors>([&](auto j)
                       HEADLOOM_INLINE_LAMBDA { start[j] = load(args.start + j * kWidth<T>); });
  const S* x = args.x;
  const T* w = args.w;
  S* y = args.y;
  const char* ahead[2] = {args.ahead[0], args.ahead[1]};
  for (int64_t block = 0; block < args.blocks; ++block) {
    for (const char*& lines : ahead) {
      if (lines != nullptr) {
        unroll<(kBlockBytes + kCacheLine - 1) / kCacheLine>(
            [&](auto i) HEADLOOM_INLINE_LAMBDA { prefetch(lines + i * kCacheLine); });
        lines += kBlockBytes;
      }
    }
    Vec<T> sum[kBandRows][kVectors];
    unroll<kBandRows>([&](auto i) HEADLOOM_INLINE_LAMBDA {
      unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA { sum[i][j] = start[j]; });
    });
    band_taps<kTaps>(args, x, w, strides, sum);
    args.streamed ? write_block<true>(y, args.y_stride, sum)
                  : write_block<false>(y, args.y_stride, sum);
    x += kBandRows * args.x_stride;
    y += kBandRows * args.y_stride;
    w += strides.block();
  }
}

template <class S>
using BandPanel = void (*)(const BandArgs<S>&);

// The panel for a number of taps. In float32 arithmetic with one weight for all lanes, common
// numbers are known at compile time.
template <class S, int kVectors, BandWeights kWeights>
HEADLOOM_INLINE BandPanel<S> pick_band_panel(int64_t taps) {
  if constexpr (sizeof(accumulator_t<S>) == 4 && kWeights != BandWeights::kPerLane) {
    switch (taps) {
      case 3:
        return band_panel<S, 3, kVectors, kWeights>;
      case 5:
        return band_panel<S, 5, kVectors, kWeights>;
      case 7:
        return band_panel<S, 7, kVectors, kWeights>;
      case 15:
        return band_panel<S, 15, kVectors, kWeights>;
      case 31:
        return band_panel<S, 31, kVectors, kWeights>;
      case 63:
        return band_panel<S, 63, kVectors, kWeights>;
      default:
        break;
    }
  }
  return band_panel<S, 0, kVectors, kWeights>;
}

}  // namespace headloom::kernels::HEADLOOM_ISA

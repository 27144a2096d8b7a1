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

// Rows that will be needed soon, fetched while others are computed with: `bytes` of each.
struct AheadRows {
  const char* at = nullptr;
  int64_t stride = 0, bytes = 0;  // in bytes
};

// Blocks of outputs down a panel. Strides count elements.
template <class T>
struct BandArgs {
  int64_t taps, blocks;
  const T* x;  // [blocks * kBandRows + taps - 1, panel]
  int64_t x_stride;
  // The weight that row r of X has in output i of the block, r = i + k: w[r * w_row + i *
  // w_output], and w_block further for each block. With weights a lane, the first of a panel of
  // them.
  const T* w;
  int64_t w_row, w_output, w_block;
  const T* start;  // [panel]
  T* y;            // [blocks * kBandRows, panel]
  int64_t y_stride;
  bool streamed = false;  // y bypasses the caches; see can_stream()
  AheadRows ahead[2] = {};
};

// One row of X into outputs kFirst to kEnd - 1.
template <int kFirst, int kEnd, int kVectors, bool kPerLane, class T>
HEADLOOM_INLINE void band_row(const T* x, const T* w, int64_t w_output,
                              Vec<T> (&sum)[kBandRows][kVectors]) {
  Vec<T> row[kVectors];
  unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA { row[j] = load(x + j * kWidth<T>); });
  unroll<kEnd - kFirst>([&](auto index) HEADLOOM_INLINE_LAMBDA {
    constexpr int i = kFirst + index;
    const T* weight = w + i * w_output;
    if constexpr (kPerLane) {
      unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
        sum[i][j] = fma(load(weight + j * kWidth<T>), row[j], sum[i][j]);
      });
    } else {
      const Vec<T> factor = broadcast(weight);
      unroll<kVectors>(
          [&](auto j) HEADLOOM_INLINE_LAMBDA { sum[i][j] = fma(factor, row[j], sum[i][j]); });
    }
  });
}

// Fewer taps than a block has rows: tap by tap, rows of X loaded again for each.
template <int kVectors, bool kPerLane, class T>
HEADLOOM_INLINE void band_few_taps(const BandArgs<T>& args, const T* x, const T* w,
                                   Vec<T> (&sum)[kBandRows][kVectors]) {
  for (int64_t k = 0; k < args.taps; ++k) {
    unroll<kBandRows>([&](auto i) HEADLOOM_INLINE_LAMBDA {
      const T* weight = w + (i + k) * args.w_row + i * args.w_output;
      unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
        const Vec<T> factor =
            kPerLane ? load(weight + j * kWidth<T>) : set1(*weight);
        sum[i][j] = fma(factor, load(x + (i + k) * args.x_stride + j * kWidth<T>), sum[i][j]);
      });
    });
  }
}

// The rows of X in order: those that reach the first outputs only, those that reach all, those that
// reach the last only.
template <int kTaps, int kVectors, bool kPerLane, class T>
HEADLOOM_INLINE void band_taps(const BandArgs<T>& args, const T* x, const T* w,
                               Vec<T> (&sum)[kBandRows][kVectors]) {
  const int64_t x_stride = args.x_stride, w_row = args.w_row, w_output = args.w_output;
  const int64_t taps = kTaps != 0 ? kTaps : args.taps;
  constexpr int kEdge = kBandRows - 1;
  if constexpr (kTaps != 0 && kTaps < kEdge) {
    unroll<kTaps + kEdge>([&](auto r) HEADLOOM_INLINE_LAMBDA {
      constexpr int kFirst = r < kTaps ? 0 : r - kTaps + 1;
      constexpr int kEnd = r < kEdge ? r + 1 : kBandRows;
      band_row<kFirst, kEnd, kVectors, kPerLane>(x + r * x_stride, w + r * w_row, w_output, sum);
    });
  } else if (kTaps == 0 && taps < kEdge) {
    band_few_taps<kVectors, kPerLane>(args, x, w, sum);
  } else {
    unroll<kEdge>([&](auto r) HEADLOOM_INLINE_LAMBDA {
      band_row<0, r + 1, kVectors, kPerLane>(x, w, w_output, sum);
      x += x_stride;
      w += w_row;
    });
    for (int64_t r = kEdge; r < taps; ++r) {
      band_row<0, kBandRows, kVectors, kPerLane>(x, w, w_output, sum);
      x += x_stride;
      w += w_row;
    }
    unroll<kEdge>([&](auto r) HEADLOOM_INLINE_LAMBDA {
      band_row<r + 1, kBandRows, kVectors, kPerLane>(x, w, w_output, sum);
      x += x_stride;
      w += w_row;
    });
  }
}

// A whole panel of kVectors vectors. kTaps is args.taps, or 0 when that is known at run time only.
template <class T, int kTaps, int kVectors, bool kPerLane>
void band_panel(const BandArgs<T>& args) {
  for (int64_t block = 0; block < args.blocks; ++block) {
    for (const AheadRows& ahead : args.ahead) {
      for (int64_t i = block * kBandRows; i < (block + 1) * kBandRows && ahead.bytes > 0; ++i) {
        prefetch_span(ahead.at + i * ahead.stride, ahead.bytes);
      }
    }
    Vec<T> sum[kBandRows][kVectors];
    unroll<kBandRows>([&](auto i) HEADLOOM_INLINE_LAMBDA {
      unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
        sum[i][j] = load(args.start + j * kWidth<T>);
      });
    });
    band_taps<kTaps, kVectors, kPerLane>(args, args.x + block * kBandRows * args.x_stride,
                                         args.w + block * args.w_block, sum);
    T* y = args.y + block * kBandRows * args.y_stride;
    const bool streamed = args.streamed;
    unroll<kBandRows>([&](auto i) HEADLOOM_INLINE_LAMBDA {
      unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
        T* target = y + i * args.y_stride + j * kWidth<T>;
        streamed ? stream(target, sum[i][j]) : store(target, sum[i][j]);
      });
    });
  }
}

template <class T>
using BandPanel = void (*)(const BandArgs<T>&);

// The panel for a number of taps. In float32 with one weight for all lanes, common numbers are
// known at compile time.
template <class T, int kVectors, bool kPerLane>
HEADLOOM_INLINE BandPanel<T> pick_band_panel(int64_t taps) {
  if constexpr (sizeof(T) == 4 && !kPerLane) {
    switch (taps) {
      case 3:
        return band_panel<T, 3, kVectors, kPerLane>;
      case 5:
        return band_panel<T, 5, kVectors, kPerLane>;
      case 7:
        return band_panel<T, 7, kVectors, kPerLane>;
      case 15:
        return band_panel<T, 15, kVectors, kPerLane>;
      case 31:
        return band_panel<T, 31, kVectors, kPerLane>;
      case 63:
        return band_panel<T, 63, kVectors, kPerLane>;
      default:
        break;
    }
  }
  return band_panel<T, 0, kVectors, kPerLane>;
}

}  // namespace headloom::kernels::HEADLOOM_ISA

#pragma once

#include "headloom/kernels/online_softmax.h"
#include "headloom/kernels/philox_lanes.h"
#include "headloom/kernels/transpose.h"
#include "headloom/mechanisms/light_conv/light_conv_tile.h"

// The weights of a tile of positions for one head, positions in the lanes: [K, stride]. Softmax and
// DropConnect are vertical operations there, and the banded product reads weights from there one by
// one. For kernel files.
namespace headloom::kernels::HEADLOOM_ISA {

template <class T>
struct TapTile {
  int64_t first, count;  // positions; count is a multiple of kTileQuantum
  int64_t stride;
  T* normalised;  // [K, stride]
  // With DropConnect, its multipliers and the products; otherwise `dropped` is `normalised`.
  T* multiplier;
  T* dropped;
  const uint8_t* in_range;  // [count + K - 1]: whether input first - P + i is there; for renorm
};

// A row of lanes of TapTile is no power of two long, which would put all taps into few cache sets.
template <class T>
HEADLOOM_INLINE int64_t tap_stride(int64_t positions) {
  const int64_t stride = round_up(positions, kTileQuantum);
  return stride * static_cast<int64_t>(sizeof(T)) % 2048 == 0 ? stride + kTileQuantum : stride;
}

// kWidth positions: the transpose of their logits, zeros for the positions that are not there.
// Returns the largest of each.
template <class S, class T>
HEADLOOM_INLINE Vec<T> transpose_logits(const Rows<S>& logits, int64_t position, int64_t taps,
                                        T* to, int64_t stride) {
  constexpr int kLanes = kWidth<T>;
  bool hidden[kLanes] = {};
  const bool all = logits.plain(position, kLanes);
  for (int i = 0; i < kLanes && !all; ++i) {
    hidden[i] = logits.hidden(position + i);
  }
  const S* row = logits.at(position);
  const Vec<T> nothing = set1(-ExpConstants<T>::kInfinity);
  Vec<T> most[2] = {nothing, nothing};  // two chains, so that neither waits for its own latency
  const auto square = [&](int64_t k, auto columns) HEADLOOM_INLINE_LAMBDA {
    Vec<T> lanes[kLanes];
    if (all) {
      unroll<kLanes>([&](auto i) HEADLOOM_INLINE_LAMBDA {
        lanes[i] = load_at(row + i * logits.stride + k, columns);
      });
    } else {
      unroll<kLanes>([&](auto i) HEADLOOM_INLINE_LAMBDA {
        lanes[i] = hidden[i] ? zero<T>() : load_at(row + i * logits.stride + k, columns);
      });
    }
    transpose(lanes);
    unroll<kLanes>([&](auto i) HEADLOOM_INLINE_LAMBDA {
      if (i < columns) {
        store(to + (k + i) * stride, lanes[i]);
        most[i % 2] = max(lanes[i], most[i % 2]);
      }
    });
  };
  int64_t k = 0;
  for (; k + kLanes <= taps; k += kLanes) {
    square(k, Index<kLanes>{});
  }
  if (k < taps) {
    square(k, taps - k);
  }
  return max(most[0], most[1]);
}

// Takes the taps that are out of range out of a softmax. `in_range` of tap k is that of the lane's
// first tap, k further. Returns the largest logit that is left.
template <class T>
HEADLOOM_INLINE Vec<T> hide_taps(T* logits, int64_t taps, int64_t stride, const uint8_t* in_range) {
  const Vec<T> nothing = set1(-ExpConstants<T>::kInfinity);
  Vec<T> most = nothing;
  for (int64_t k = 0; k < taps; ++k) {
    T* logit = logits + k * stride;
    const Vec<T> kept = select(keep_mask<T>(in_range + k, kWidth<T>), load(logit), nothing);
    store(logit, kept);
    most = max(kept, most);
  }
  return most;
}

// Softmax over the taps, one position a lane, from the largest logit of each.
template <class T>
HEADLOOM_INLINE void softmax_lanes(T* weights, int64_t taps, int64_t stride, Vec<T> most) {
  const Vec<T> shift = finite_shift(most), log2e = set1(ExpConstants<T>::kLog2E);
  // The difference first: the largest logit has the weight 2^0 = 1 exactly.
  const auto weigh = [&](int64_t k) HEADLOOM_INLINE_LAMBDA {
    const Vec<T> weight = exp2((load(weights + k * stride) - shift) * log2e);
    store(weights + k * stride, weight);
    return weight;
  };
  Vec<T> sum[2] = {zero<T>(), zero<T>()};
  const int64_t pairs = taps / 2 * 2;
  for (int64_t k = 0; k < pairs; k += 2) {
    unroll<2>([&](auto i) HEADLOOM_INLINE_LAMBDA { sum[i] = sum[i] + weigh(k + i); });
  }
  if (pairs < taps) {
    sum[0] = sum[0] + weigh(pairs);
  }
  const Vec<T> inverse = inverse_or_zero(sum[0] + sum[1]);
  for (int64_t k = 0; k < taps; ++k) {
    store(weights + k * stride, load(weights + k * stride) * inverse);
  }
}

// Weights times the mask of their positions; positions that are hidden lose all weights.
template <class S, class T>
void drop_taps(const ConvArgs<S>& args, const Rows<S>& logits, int64_t batch, int64_t head,
               const TapTile<T>& tile) {
  const auto element = [&](int64_t p) HEADLOOM_INLINE_LAMBDA {
    return ((batch * args.time + tile.first + p) * args.heads + head) * args.taps;
  };
  dropout_lanes(args.drop.seed, static_cast<uint32_t>(args.drop.threshold), element,
                static_cast<T>(args.drop.kept), args.taps, tile.count, tile.multiplier,
                tile.stride);
  for (int64_t p = 0; p < tile.count; ++p) {
    if (!logits.hidden(tile.first + p)) continue;
    for (int64_t k = 0; k < args.taps; ++k) tile.multiplier[k * tile.stride + p] = T(0);
  }
  for (int64_t k = 0; k < args.taps; ++k) {
    for (int64_t i = k * tile.stride; i < k * tile.stride + tile.count; i += kWidth<T>) {
      store(tile.dropped + i, load(tile.normalised + i) * load(tile.multiplier + i));
    }
  }
}

// Fills the tile for one head. Positions outside the sequence and at padding have weights too,
// which are finite: what they multiply is zero. `ahead` positions further lies what comes next: of
// it each head fetches a share, in the order of addresses.
template <class S, class T>
void fill_taps(const ConvArgs<S>& args, const ConvTile& where, int64_t head, const TapTile<T>& tile,
               int64_t ahead) {
  const Rows<S> logits{
      args.logits == nullptr
          ? nullptr
          : args.logits + where.batch * args.logits_batch_stride + head * args.logits_head_stride,
      args.logits_time_stride,
      where.first,
      where.last,
      0,
      padding_of(args, where)};
  if (args.logits == nullptr) {
    for (int64_t k = 0; k < args.taps; ++k) {
      const Vec<T> weight = set1(args.shared[head * args.taps + k]);
      for (int64_t p = 0; p < tile.count; p += kWidth<T>) {
        store(tile.normalised + k * tile.stride + p, weight);
      }
    }
  } else {
    for (int64_t p = 0; p < tile.count; p += kWidth<T>) {
      const int64_t share = kWidth<T> * args.taps;
      prefetch_span(logits.at(tile.first + p + ahead) + head * (share - args.logits_head_stride),
                    share * static_cast<int64_t>(sizeof(S)));
      T* weights = tile.normalised + p;
      Vec<T> most = transpose_logits(logits, tile.first + p, args.taps, weights, tile.stride);
      if (args.renorm) {
        most = hide_taps(weights, args.taps, tile.stride, tile.in_range + p);
      }
      if (args.softmax) {
        softmax_lanes(weights, args.taps, tile.stride, most);
      }
    }
  }
  if (args.drop.active) {
    drop_taps(args, logits, where.batch, head, tile);
  }
}

// in_range[i]: whether position first - P + i of the input is inside the sequence and no padding.
template <class S>
void mark_range(const Rows<S>& input, int64_t first, int64_t count, uint8_t* in_range) {
  for (int64_t i = 0; i < count; ++i) {
    in_range[i] = input.hidden(first + i) ? 0 : 1;
  }
}

// The parts of a workspace that hold a tile of `positions` positions.
template <class S, class T>
HEADLOOM_INLINE TapTile<T> carve_taps(Carver& carver, const ConvArgs<S>& args, int64_t positions) {
  TapTile<T> tile{};
  tile.count = round_up(positions, kTileQuantum);
  tile.stride = tap_stride<T>(positions);
  tile.normalised = carver.take<T>(args.taps * tile.stride);
  tile.multiplier = args.drop.active ? carver.take<T>(args.taps * tile.stride) : nullptr;
  tile.dropped = args.drop.active ? carver.take<T>(args.taps * tile.stride) : tile.normalised;
  return tile;
}

}  // namespace headloom::kernels::HEADLOOM_ISA

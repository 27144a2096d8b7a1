#pragma once

#include "headloom/kernels/banded.h"
#include "headloom/mechanisms/light_conv/light_conv_kernels.h"

// What the convolutions' kernels share: rows of a sequence packed into panels of channels, and
// panels written back. For kernel files.
namespace headloom::kernels::HEADLOOM_ISA {

HEADLOOM_INLINE int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}
HEADLOOM_INLINE int64_t larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}
HEADLOOM_INLINE int64_t round_up(int64_t value, int64_t step) {
  return (value + step - 1) / step * step;
}

template <class T>
inline constexpr int64_t kPanel = kBandVectors * kWidth<T>;  // channels of a full panel

// Hands out parts of a workspace; with no memory it only counts.
class Carver {
 public:
  explicit Carver(void* memory) : begin_(static_cast<char*>(memory)) {}
  template <class T>
  HEADLOOM_INLINE T* take(int64_t count) {
    char* part = begin_ == nullptr ? nullptr : begin_ + used_;
    used_ += round_up(count * static_cast<int64_t>(sizeof(T)), kCacheLine);
    return reinterpret_cast<T*>(part);
  }
  HEADLOOM_INLINE int64_t used() const { return used_; }

 private:
  char* begin_;
  int64_t used_ = 0;
};

// The positions of one sequence of x or of a gradient: position u, begin <= u < end, stands in row
// u - shift of `data`, whose rows are channels; everything else, and padding, counts as zeros.
template <class S>
struct Rows {
  const S* data;
  int64_t stride, begin, end, shift;
  const uint8_t* padded;  // by row, or nullptr

  HEADLOOM_INLINE const S* at(int64_t u) const { return data + (u - shift) * stride; }
  HEADLOOM_INLINE bool hidden(int64_t u) const {
    return u < begin || u >= end || (padded != nullptr && padded[u - shift] != 0);
  }
};

template <class S>
HEADLOOM_INLINE const uint8_t* padding_of(const ConvArgs<S>& args, const ConvTile& tile) {
  return args.padded == nullptr ? nullptr : args.padded + tile.batch * args.time;
}

// x as the outputs of the tile's sequence see it: later by the delay.
template <class S>
HEADLOOM_INLINE Rows<S> input_rows(const ConvArgs<S>& args, const ConvTile& tile) {
  return {args.x + tile.batch * args.x_batch_stride,
          args.x_time_stride,
          smaller(tile.first + args.delay, tile.last),
          tile.last,
          args.delay,
          padding_of(args, tile)};
}

// One row of a panel: `channels` values, zeros in the lanes that are none.
template <class S, class T>
HEADLOOM_INLINE void pack_row(const S* from, int64_t channels, int64_t panel, T* to) {
  int64_t c = 0;
  for (; c + kWidth<T> <= channels; c += kWidth<T>) {
    store(to + c, load(from + c));
  }
  if (c < channels) {
    store(to + c, load_partial(from + c, channels - c));
    c += kWidth<T>;
  }
  for (; c < panel; c += kWidth<T>) {
    store(to + c, zero<T>());
  }
}

// Positions first .. first + count - 1, `channels` channels from `channel` on, as rows of `panel`
// accumulators.
template <class S, class T>
void pack_panel(const Rows<S>& from, int64_t first, int64_t count, int64_t channel,
                int64_t channels, int64_t panel, T* to) {
  const auto zeros = [&](int64_t begin, int64_t end) HEADLOOM_INLINE_LAMBDA {
    for (int64_t i = (begin - first) * panel; i < (end - first) * panel; i += kWidth<T>) {
      store(to + i, zero<T>());
    }
  };
  const int64_t end = first + count;
  const int64_t begin_inside = smaller(larger(first, from.begin), end);
  const int64_t end_inside = larger(smaller(end, from.end), begin_inside);
  zeros(first, begin_inside);
  const S* row = from.at(begin_inside) + channel;
  T* target = to + (begin_inside - first) * panel;
  if (from.padded == nullptr && channels == 2 * kWidth<T> && panel == channels) {
    for (int64_t u = begin_inside; u < end_inside; ++u, row += from.stride, target += panel) {
      store(target, load(row));
      store(target + kWidth<T>, load(row + kWidth<T>));
    }
  } else {
    for (int64_t u = begin_inside; u < end_inside; ++u, row += from.stride, target += panel) {
      pack_row(row, from.hidden(u) ? 0 : channels, panel, target);
    }
  }
  zeros(end_inside, end);
}

// Where a panel of results goes: `rows` rows of `channels` channels.
template <class S>
struct PanelSink {
  S* data;
  int64_t stride, rows, channels;
  bool streamed;
};

// Runs the product down the panel. Whole blocks of whole panels go straight to their place, the
// rest through `scratch`, [rows rounded up, panel].
template <class S, class T>
void run_panel(BandPanel<T> product, BandArgs<T> band, int64_t panel, const PanelSink<S>& sink,
               T* scratch) {
  int64_t whole = 0;
  if constexpr (sizeof(S) == sizeof(T)) {
    if (sink.channels == panel) {
      whole = sink.rows / kBandRows;
      band.blocks = whole;
      band.y = sink.data;
      band.y_stride = sink.stride;
      band.streamed = sink.streamed && can_stream(sink.data, sink.stride);
      product(band);
    }
  }
  const int64_t done = whole * kBandRows, left = sink.rows - done;
  if (left <= 0) {
    return;
  }
  band.blocks = (left + kBandRows - 1) / kBandRows;
  band.x += done * band.x_stride;
  band.w += whole * band.w_block;
  band.y = scratch;
  band.y_stride = panel;
  band.streamed = false;
  product(band);
  for (int64_t i = 0; i < left; ++i) {
    S* target = sink.data + (done + i) * sink.stride;
    for_each_vector<T>(sink.channels, [&](int64_t c, auto count) HEADLOOM_INLINE_LAMBDA {
      store_at(target + c, count, load(scratch + i * panel + c));
    });
  }
}

// Clears the rows of the tile that are padding. `row(u)` is where position u goes.
template <class S>
HEADLOOM_INLINE void clear_padding(const uint8_t* padded, int64_t begin, int64_t end, int64_t shift,
                                   S* data, int64_t stride) {
  if (padded == nullptr) {
    return;
  }
  for (int64_t u = begin; u < end; ++u) {
    if (padded[u - shift] != 0) {
      __builtin_memset(data + (u - shift) * stride, 0, static_cast<size_t>(stride) * sizeof(S));
    }
  }
}

// A panel of channels, all of one head unless weights are given a lane.
struct Panel {
  int64_t channel, channels, width;  // width: channels and the lanes that are none
};

// The panels of a range of channels, in order; the last one may be half as wide.
template <class T, class Body>
HEADLOOM_INLINE void for_each_panel(int64_t begin, int64_t end, const Body& body) {
  for (int64_t c = begin; c < end; c += kPanel<T>) {
    const int64_t channels = smaller(end - c, kPanel<T>);
    body(Panel{c, channels, channels <= kWidth<T> ? kWidth<T> : kPanel<T>});
  }
}

// Whether every full panel lies within one head, so that one kernel serves all of its lanes.
template <class S>
HEADLOOM_INLINE bool one_head_a_panel(const ConvArgs<S>& args) {
  return args.channels / args.heads % kPanel<accumulator_t<S>> == 0;
}

// shared [H, K] as weights a lane: [panels, K, panel width].
template <class S, class T>
void spread_shared(const ConvArgs<S>& args, T* lanes) {
  const int64_t per_head = args.channels / args.heads;
  for_each_panel<T>(0, args.channels, [&](Panel panel) HEADLOOM_INLINE_LAMBDA {
    T* to = lanes + panel.channel * args.taps;
    for (int64_t lane = 0; lane < panel.width; ++lane) {
      const int64_t c = panel.channel + smaller(lane, panel.channels - 1);
      const T* weights = args.shared + c / per_head * args.taps;
      for (int64_t k = 0; k < args.taps; ++k) {
        to[k * panel.width + lane] = weights[k];
      }
    }
  });
}

// The product for a panel of the given width.
template <class T, bool kPerLane>
HEADLOOM_INLINE BandPanel<T> product_for(int64_t taps, int64_t width) {
  return width == kPanel<T> ? pick_band_panel<T, kBandVectors, kPerLane>(taps)
                            : pick_band_panel<T, 1, kPerLane>(taps);
}

}  // namespace headloom::kernels::HEADLOOM_ISA

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
inline constexpr int64_t kPanel = kBandVectors* kWidth<T>;  // channels of a full panel

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
  // Whether none of `count` positions from u on can be hidden, so that they may be read as they
  // lie.
  HEADLOOM_INLINE bool plain(int64_t u, int64_t count) const {
    return padded == nullptr && u >= begin && u + count <= end;
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

// A panel of channels, all of one head unless weights are given a lane. `width` counts the lanes
// that are no channel too, and `lane` those of the panels before it.
struct Panel {
  int64_t channel, channels, width, lane;
};

// Channels cut into panels, each group of them apart; the last panel of a group may be half as
// wide.
template <class T>
struct Panels {
  int64_t groups, per_group;

  HEADLOOM_INLINE int64_t group_lanes() const {
    const int64_t rest = per_group % kPanel<T>;
    return per_group - rest + (rest == 0 ? 0 : rest <= kWidth<T> ? kWidth<T> : kPanel<T>);
  }
  HEADLOOM_INLINE int64_t lanes() const { return groups * group_lanes(); }

  template <class Body>
  HEADLOOM_INLINE void for_each_of(int64_t group, const Body& body) const {
    for (int64_t c = 0; c < per_group; c += kPanel<T>) {
      const int64_t channels = smaller(per_group - c, kPanel<T>);
      body(Panel{group * per_group + c, channels, channels <= kWidth<T> ? kWidth<T> : kPanel<T>,
                 group * group_lanes() + c});
    }
  }
  template <class Body>
  HEADLOOM_INLINE void for_each(const Body& body) const {
    for (int64_t group = 0; group < groups; ++group) {
      for_each_of(group, body);
    }
  }
};

// Heads are kept apart where each position has kernels of its own.
template <class S>
HEADLOOM_INLINE Panels<accumulator_t<S>> panels_of(const ConvArgs<S>& args) {
  return args.per_position() ? Panels<accumulator_t<S>>{args.heads, args.channels / args.heads}
                             : Panels<accumulator_t<S>>{1, args.channels};
}

// A window of rows, packed panel by panel: [panels][height][width].
template <class T>
struct Window {
  T* data;
  int64_t height;  // odd, so that panels do not begin in the same cache sets

  HEADLOOM_INLINE T* of(const Panel& panel) const { return data + panel.lane * height; }
};

template <class T>
HEADLOOM_INLINE Window<T> carve_window(Carver& carver, int64_t lanes, int64_t rows) {
  const int64_t height = rows | 1;
  return {carver.take<T>(lanes * height), height};
}

// One row of a panel: `channels` values, zeros in the lanes that are none.
template <class S, class T>
HEADLOOM_INLINE void pack_row(const S* from, int64_t channels, int64_t width, T* to) {
  if (channels == kPanel<T>) {
    unroll<kBandVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
      store(to + j * kWidth<T>, load(from + j * kWidth<T>));
    });
    return;
  }
  for (int64_t c = 0; c < width; c += kWidth<T>) {
    const int64_t left = channels - c;
    store(to + c, left <= 0          ? zero<T>()
                  : left < kWidth<T> ? load_partial(from + c, left)
                                     : load(from + c));
  }
}

// The panel's part of position u.
template <class S, class T>
HEADLOOM_INLINE void pack_position(const Rows<S>& from, int64_t u, bool hidden, const Panel& panel,
                                   T* to) {
  if (hidden) {
    for (int64_t c = 0; c < panel.width; c += kWidth<T>) {
      store(to + c, zero<T>());
    }
  } else {
    pack_row(from.at(u) + panel.channel, panel.channels, panel.width, to);
  }
}

// Positions first .. first + count - 1. Row by row: memory is read in the order in which it lies.
template <class S, class T>
void pack(const Rows<S>& from, int64_t first, int64_t count, const Panels<T>& panels,
          const Window<T>& window) {
  for (int64_t i = 0; i < count; ++i) {
    const bool hidden = from.hidden(first + i);
    panels.for_each([&](Panel panel) HEADLOOM_INLINE_LAMBDA {
      pack_position(from, first + i, hidden, panel, window.of(panel) + i * panel.width);
    });
  }
}

// The same for one panel.
template <class S, class T>
void pack_panel(const Rows<S>& from, int64_t first, int64_t count, const Panel& panel, T* to) {
  for (int64_t i = 0; i < count; ++i) {
    pack_position(from, first + i, from.hidden(first + i), panel, to + i * panel.width);
  }
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
  band.w += whole * band.w_block;  // 0 with shared weights
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

// The panel's rows from position u on, to be fetched ahead when there are lines enough to be worth
// it.
template <class S>
HEADLOOM_INLINE AheadRows rows_ahead(const Rows<S>& rows, int64_t u, const Panel& panel) {
  const auto bytes = static_cast<int64_t>(sizeof(S));
  if (panel.channels * bytes < kCacheLine) {
    return {};
  }
  return {reinterpret_cast<const char*>(rows.at(u) + panel.channel), rows.stride * bytes};
}

// Whether every full panel lies within one head, so that one kernel serves all of its lanes.
template <class S>
HEADLOOM_INLINE bool one_head_a_panel(const ConvArgs<S>& args) {
  return args.channels / args.heads % kPanel<accumulator_t<S>> == 0;
}

// The shared kernels as the product takes them: [H, K] where every panel lies in one head, else
// weights a lane, [panels, K, panel width]. Reversed for the gradient of x.
template <class S, class T>
void lay_out_shared(const ConvArgs<S>& args, bool reversed, T* to) {
  const int64_t per_head = args.channels / args.heads, taps = args.taps;
  const auto tap = [&](int64_t k) HEADLOOM_INLINE_LAMBDA { return reversed ? taps - 1 - k : k; };
  if (one_head_a_panel(args)) {
    for (int64_t i = 0; i < args.heads; ++i) {
      for (int64_t k = 0; k < taps; ++k) {
        to[i * taps + k] = args.shared[i * taps + tap(k)];
      }
    }
    return;
  }
  Panels<T>{1, args.channels}.for_each([&](Panel panel) HEADLOOM_INLINE_LAMBDA {
    T* lanes = to + panel.lane * taps;
    for (int64_t lane = 0; lane < panel.width; ++lane) {
      const int64_t c = panel.channel + smaller(lane, panel.channels - 1);
      for (int64_t k = 0; k < taps; ++k) {
        lanes[k * panel.width + lane] = args.shared[c / per_head * taps + tap(k)];
      }
    }
  });
}

template <class S>
HEADLOOM_INLINE int64_t shared_elements(const ConvArgs<S>& args) {
  return args.taps *
         (one_head_a_panel(args) ? args.heads : round_up(args.channels, kPanel<accumulator_t<S>>));
}

// The product for a panel of the given width.
template <class T, BandWeights kWeights>
HEADLOOM_INLINE BandPanel<T> product_for(int64_t taps, int64_t width) {
  return width == kPanel<T> ? pick_band_panel<T, kBandVectors, kWeights>(taps)
                            : pick_band_panel<T, 1, kWeights>(taps);
}

// The product with shared kernels that lay_out_shared() laid out, and where its weights begin.
template <class S, class T>
HEADLOOM_INLINE BandPanel<T> shared_product(const ConvArgs<S>& args, const T* laid_out,
                                            const Panel& panel, const T** w) {
  if (one_head_a_panel(args)) {
    *w = laid_out + panel.channel / (args.channels / args.heads) * args.taps;
    return pick_band_panel<T, kBandVectors, BandWeights::kShared>(args.taps);
  }
  *w = laid_out + panel.lane * args.taps;
  return product_for<T, BandWeights::kPerLane>(args.taps, panel.width);
}

}  // namespace headloom::kernels::HEADLOOM_ISA

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
  // Whether none of `count` positions from u on is hidden, so that they may be read as they lie.
  HEADLOOM_INLINE bool plain(int64_t u, int64_t count) const {
    bool shown = u >= begin && u + count <= end;
    for (int64_t i = 0; shown && padded != nullptr && i < count; ++i) {
      shown = padded[u - shift + i] == 0;
    }
    return shown;
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
  // Whether every lane is a channel.
  HEADLOOM_INLINE bool whole() const { return group_lanes() == per_group; }

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

// A window of rows, packed panel by panel: [panels][height][width]. X is the storage type of what
// it came from, or the accumulator's.
template <class X>
struct Window {
  X* data;
  int64_t height;  // odd, so that panels do not begin in the same cache sets

  HEADLOOM_INLINE X* of(const Panel& panel) const { return data + panel.lane * height; }
};

template <class X>
HEADLOOM_INLINE Window<X> carve_window(Carver& carver, int64_t lanes, int64_t rows) {
  const int64_t height = rows | 1;
  return {carver.take<X>(lanes * height), height};
}

// One row of a panel: `channels` values, zeros in the lanes that are none.
template <class S, class X>
HEADLOOM_INLINE void pack_row(const S* from, int64_t channels, int64_t width, X* to) {
  using T = accumulator_t<S>;
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
template <class S, class X>
HEADLOOM_INLINE void pack_position(const Rows<S>& from, int64_t u, bool hidden, const Panel& panel,
                                   X* to) {
  using T = accumulator_t<S>;
  if (hidden) {
    for (int64_t c = 0; c < panel.width; c += kWidth<T>) {
      store(to + c, zero<T>());
    }
  } else {
    pack_row(from.at(u) + panel.channel, panel.channels, panel.width, to);
  }
}

// Positions first .. first + count - 1 into the window's rows from `row` on. Row by row: memory is
// read in the order in which it lies.
template <class S, class X>
void pack(const Rows<S>& from, int64_t first, int64_t count, const Panels<accumulator_t<S>>& panels,
          const Window<X>& window, int64_t row = 0) {
  for (int64_t i = 0; i < count; ++i) {
    const bool hidden = from.hidden(first + i);
    panels.for_each([&](Panel panel) HEADLOOM_INLINE_LAMBDA {
      pack_position(from, first + i, hidden, panel, window.of(panel) + (row + i) * panel.width);
    });
  }
}

// The same for one panel.
template <class S, class X>
void pack_panel(const Rows<S>& from, int64_t first, int64_t count, const Panel& panel, X* to) {
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
// rest through `scratch`, [rows rounded up, panel], and so does everything whose type differs.
template <class S, class X>
void run_panel(BandPanel<X> product, BandArgs<X> band, int64_t panel, const PanelSink<S>& sink,
               X* scratch) {
  int64_t whole = 0;
  if constexpr (sizeof(S) == sizeof(X)) {
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
    for_each_vector<accumulator_t<S>>(sink.channels,
                                      [&](int64_t c, auto count) HEADLOOM_INLINE_LAMBDA {
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

// What the panel fetches of `count` rows from position u on: a share of all their channels, in the
// order of addresses, from its row `row` on. (With rows that do not follow each other it may miss.)
template <class S>
HEADLOOM_INLINE const char* rows_ahead(const Rows<S>& rows, int64_t u, int64_t count,
                                       int64_t channels, const Panel& panel, int64_t row = 0) {
  const int64_t element = panel.channel * count + row * panel.width;
  return reinterpret_cast<const char*>(rows.at(u + element / channels) + element % channels);
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

// The product for a panel of the given width, X the type of its rows.
template <class X, BandWeights kWeights>
HEADLOOM_INLINE BandPanel<X> product_for(int64_t taps, int64_t width) {
  return width == kPanel<accumulator_t<X>> ? pick_band_panel<X, kBandVectors, kWeights>(taps)
                                           : pick_band_panel<X, 1, kWeights>(taps);
}

// The product with shared kernels that lay_out_shared() laid out, and where its weights begin.
template <class X, class S, class T>
HEADLOOM_INLINE BandPanel<X> shared_product(const ConvArgs<S>& args, const T* laid_out,
                                            const Panel& panel, const T** w) {
  if (one_head_a_panel(args)) {
    *w = laid_out + panel.channel / (args.channels / args.heads) * args.taps;
    return pick_band_panel<X, kBandVectors, BandWeights::kShared>(args.taps);
  }
  *w = laid_out + panel.lane * args.taps;
  return product_for<X, BandWeights::kPerLane>(args.taps, panel.width);
}

}  // namespace headloom::kernels::HEADLOOM_ISA

#include "headloom/mechanisms/light_conv/tap_softmax.h"

namespace headloom::kernels::HEADLOOM_ISA {

namespace {

static_assert(kBandPositions == kTileQuantum);

// Positions that are computed together, all channels before the next: what they read and write lies
// together in memory. More of them where many taps read each row of x again.
HEADLOOM_INLINE int64_t step_rows(int64_t taps) {
  return taps < 63 ? kBandPositions : 4 * kBandPositions;
}

template <class S, class T>
struct ForwardSpace {
  Window<S> window;  // a tile's rows of x, as far as they cannot be read in place
  S* scratch;        // [tile_rows, panel]
  T* start;          // [C and a panel]: the bias
  T* shared;         // laid out
  TapTile<T> taps;   // of kBandPositions
  uint8_t* in_range;
};

template <class S, class T>
ForwardSpace<S, T> carve(Carver& carver, const ConvArgs<S>& args) {
  ForwardSpace<S, T> space{};
  const int64_t rows = round_up(args.tile_rows, kBandPositions);
  space.window = carve_window<S>(carver, panels_of(args).lanes(), rows + args.taps - 1);
  space.scratch = carver.take<S>(rows * kPanel<T>);
  space.start = carver.take<T>(args.channels + kPanel<T>);
  if (args.per_position()) {
    space.taps = carve_taps<S, T>(carver, args, kBandPositions);
    space.in_range = carver.take<uint8_t>(rows + args.taps + kVectorBytes);
  } else {
    space.shared = carver.take<T>(shared_elements(args));
  }
  return space;
}

template <class S>
int64_t workspace_bytes(const ConvArgs<S>& args) {
  Carver carver(nullptr);
  carve<S, accumulator_t<S>>(carver, args);
  return carver.used();
}

// Outputs begin to begin + count - 1 of a tile.
template <class S, class T>
class ForwardStep {
 public:
  ForwardStep(const ConvForwardArgs<S>& args, const ConvTile& tile, const ForwardSpace<S, T>& space,
              int64_t begin, int64_t count)
      : args_(args), conv_(args.conv), tile_(tile), space_(space), begin_(begin), count_(count) {
    panels_ = panels_of(conv_);
    input_ = input_rows(conv_, tile);
    rows_ = step_rows(conv_.taps);
    first_ = begin - conv_.left;
    height_ = round_up(count, kBandPositions) + conv_.taps - 1;
    in_place_ = panels_.whole() && input_.plain(first_, height_);
  }

  // Rows of x below `packed` are in the window already.
  void run(int64_t& packed) {
    if (!in_place_) {
      const int64_t from = larger(first_, packed), end = first_ + height_;
      pack(input_, from, end - from, panels_, space_.window, from - window_begin());
      packed = end;
    }
    conv_.per_position() ? per_position() : shared();
  }

 private:
  int64_t window_begin() const { return tile_.begin - conv_.left; }

  void shared() {
    panels_.for_each([&](Panel panel) HEADLOOM_INLINE_LAMBDA {
      BandArgs<S> band{};
      const BandPanel<S> product = shared_product<S>(conv_, space_.shared, panel, &band.w);
      multiply(panel, band, product, 0, count_);
    });
  }

  void per_position() {
    if (conv_.renorm) {
      mark_range(input_, first_, height_, space_.in_range);
    }
    for (int64_t head = 0; head < conv_.heads; ++head) {
      for (int64_t row = 0; row < count_; row += kBandPositions) {
        TapTile<T> taps = space_.taps;
        taps.first = begin_ + row;
        taps.in_range = space_.in_range + row;
        fill_taps(conv_, tile_, head, taps, rows_);
        panels_.for_each_of(head, [&](Panel panel) HEADLOOM_INLINE_LAMBDA {
          BandArgs<S> band{};
          band.w = taps.dropped;
          band.w_block = kBandRows;
          multiply(panel, band, product_for<S, BandWeights::kPositions>(conv_.taps, panel.width),
                   row, smaller(kBandPositions, count_ - row));
        });
      }
    }
  }

  // `count` of the step's rows from `row` on.
  void multiply(const Panel& panel, BandArgs<S>& band, BandPanel<S> product, int64_t row,
                int64_t count) {
    band.x_stride = in_place_ ? input_.stride : panel.width;
    band.x = in_place_ ? input_.at(first_ + row) + panel.channel
                       : space_.window.of(panel) + (first_ + row - window_begin()) * panel.width;
    band.ahead[0] = rows_ahead(input_, first_ + height_, rows_, conv_.channels, panel, row);
    band.taps = conv_.taps;
    band.start = space_.start + panel.channel;
    S* y = args_.y + (tile_.batch * conv_.time + begin_ + row) * conv_.channels + panel.channel;
    run_panel(product, band, panel.width,
              PanelSink<S>{y, conv_.channels, count, panel.channels, args_.streamed},
              space_.scratch);
  }

  const ConvForwardArgs<S>& args_;
  const ConvArgs<S>& conv_;
  const ConvTile& tile_;
  const ForwardSpace<S, T>& space_;
  int64_t begin_, count_;
  Panels<T> panels_;
  Rows<S> input_;
  int64_t rows_;            // of a whole step
  int64_t first_, height_;  // the rows of x that are read
  bool in_place_;           // they are read as they lie
};

template <class S, class T>
void run_tile(const ConvForwardArgs<S>& args, const ConvTile& tile,
              const ForwardSpace<S, T>& space) {
  const ConvArgs<S>& conv = args.conv;
  const int64_t rows = step_rows(conv.taps);
  int64_t packed = tile.begin - conv.left;
  for (int64_t begin = tile.begin; begin < tile.end; begin += rows) {
    ForwardStep<S, T>(args, tile, space, begin, smaller(rows, tile.end - begin)).run(packed);
  }
  clear_padding(input_rows(conv, tile).padded, tile.begin, tile.end, 0,
                args.y + tile.batch * conv.time * conv.channels, conv.channels);
}

template <class S>
void run(const ConvForwardArgs<S>& args, const ConvTile* tiles, int64_t count, void* workspace) {
  using T = accumulator_t<S>;
  Carver carver(workspace);
  const ForwardSpace<S, T> space = carve<S, T>(carver, args.conv);
  for (int64_t c = 0; c < args.conv.channels + kPanel<T>; ++c) {
    space.start[c] = args.bias != nullptr && c < args.conv.channels ? args.bias[c] : T(0);
  }
  if (!args.conv.per_position()) {
    lay_out_shared(args.conv, /*reversed=*/false, space.shared);
  }
  for (int64_t i = 0; i < count; ++i) {
    run_tile(args, tiles[i], space);
  }
  if (args.streamed) {
    stream_fence();
  }
}

template <class S>
constexpr ConvForwardKernels<S> kKernels = {workspace_bytes<S>, run<S>};

}  // namespace

extern const ConvForwardTable conv_forward_table;
const ConvForwardTable conv_forward_table = {kKernels<double>, kKernels<float>, kKernels<BFloat16>,
                                             kKernels<Half>};

}  // namespace headloom::kernels::HEADLOOM_ISA

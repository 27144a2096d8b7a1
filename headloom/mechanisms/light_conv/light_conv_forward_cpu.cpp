#include "headloom/mechanisms/light_conv/tap_softmax.h"

namespace headloom::kernels::HEADLOOM_ISA {

namespace {

template <class T>
struct ForwardSpace {
  Window<T> window;  // tile_rows + K - 1 rows of x
  T* scratch;        // [tile_rows, panel]
  T* start;          // [C and a panel]: the bias
  T* shared;         // laid out
  TapTile<T> taps;
  uint8_t* in_range;
};

template <class S, class T>
ForwardSpace<T> carve(Carver& carver, const ConvArgs<S>& args) {
  ForwardSpace<T> space{};
  const int64_t rows = round_up(args.tile_rows, kTileQuantum);
  space.window = carve_window<T>(carver, panels_of(args).lanes(), rows + args.taps - 1);
  space.scratch = carver.take<T>(rows * kPanel<T>);
  space.start = carver.take<T>(args.channels + kPanel<T>);
  if (args.per_position()) {
    space.taps = carve_taps<S, T>(carver, args, rows);
    space.in_range = carver.take<uint8_t>(rows + args.taps + kVectorBytes);
    space.taps.in_range = space.in_range;
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

// One tile of outputs.
template <class S, class T>
class ForwardTile {
 public:
  ForwardTile(const ConvForwardArgs<S>& args, const ConvTile& tile, const ForwardSpace<T>& space)
      : args_(args), conv_(args.conv), tile_(tile), space_(space) {
    panels_ = panels_of(conv_);
    input_ = input_rows(conv_, tile);
    first_ = tile.begin - conv_.left;
    rows_ = tile.end - tile.begin;
    padded_rows_ = round_up(rows_, kTileQuantum);
    y_ = args.y + tile.batch * conv_.time * conv_.channels;
  }

  void run() {
    conv_.per_position() ? per_position() : shared();
    clear_padding(input_.padded, tile_.begin, tile_.end, 0, y_, conv_.channels);
  }

 private:
  void shared() {
    const bool in_place = reads_in_place();
    if (!in_place) {
      pack_input();
    }
    // Rows in place stay in the first-level cache from panel to panel if there are not many.
    const int64_t step = in_place ? kTileQuantum : padded_rows_;
    for (int64_t row = 0; row < rows_; row += step) {
      panels_.for_each([&](Panel panel) HEADLOOM_INLINE_LAMBDA {
        BandArgs<T> band{};
        const BandPanel<T> product = shared_product(conv_, space_.shared, panel, &band.w);
        if (in_place) {
          band.x = in_place_row(first_ + row) + panel.channel;
          band.x_stride = input_.stride;
          multiply(panel, band, product, row, smaller(step, rows_ - row));
        } else {
          multiply_packed(panel, band, product);
        }
      });
    }
  }

  void per_position() {
    pack_input();
    TapTile<T> taps = space_.taps;
    taps.first = tile_.begin;
    taps.count = padded_rows_;
    if (conv_.renorm) {
      mark_range(input_, first_, padded_rows_ + conv_.taps - 1, space_.in_range);
    }
    for (int64_t head = 0; head < conv_.heads; ++head) {
      fill_taps(conv_, tile_, head, taps, conv_.tile_rows);
      panels_.for_each_of(head, [&](Panel panel) HEADLOOM_INLINE_LAMBDA {
        BandArgs<T> band{};
        band.w = taps.dropped;
        band.w_row = taps.stride;
        band.w_output = 1 - taps.stride;
        band.w_block = kBandRows;
        multiply_packed(panel, band,
                        product_for<T, BandWeights::kPerPosition>(conv_.taps, panel.width));
      });
    }
  }

  void pack_input() { pack(input_, first_, padded_rows_ + conv_.taps - 1, panels_, space_.window); }

  void multiply_packed(const Panel& panel, BandArgs<T>& band, BandPanel<T> product) {
    band.x = space_.window.of(panel);
    band.x_stride = panel.width;
    band.ahead[0] = rows_ahead(input_, first_ + padded_rows_ + conv_.taps - 1, panel);
    multiply(panel, band, product, 0, rows_);
  }

  // Rows `row` to `row + count - 1` of the tile.
  void multiply(const Panel& panel, BandArgs<T>& band, BandPanel<T> product, int64_t row,
                int64_t count) {
    band.taps = conv_.taps;
    band.start = space_.start + panel.channel;
    run_panel(product, band, panel.width,
              PanelSink<S>{y_ + (tile_.begin + row) * conv_.channels + panel.channel,
                           conv_.channels, count, panel.channels, args_.streamed},
              space_.scratch);
  }

  // Few taps do not pay for a copy of their rows, where the rows can be used as they are.
  bool reads_in_place() const {
    return sizeof(S) == sizeof(T) && conv_.taps <= kTapsInPlace && !args_.streamed &&
           conv_.channels % kPanel<T> == 0 && input_.plain(first_, padded_rows_ + conv_.taps - 1);
  }
  static constexpr int64_t kTapsInPlace = 15;

  const T* in_place_row(int64_t u) const {
    if constexpr (sizeof(S) == sizeof(T)) {
      return input_.at(u);
    } else {
      return nullptr;
    }
  }

  const ConvForwardArgs<S>& args_;
  const ConvArgs<S>& conv_;
  const ConvTile& tile_;
  const ForwardSpace<T>& space_;
  Panels<T> panels_;
  Rows<S> input_;
  int64_t rows_, padded_rows_;
  int64_t first_;  // where the window begins
  S* y_;
};

template <class S>
void run(const ConvForwardArgs<S>& args, const ConvTile* tiles, int64_t count, void* workspace) {
  using T = accumulator_t<S>;
  Carver carver(workspace);
  const ForwardSpace<T> space = carve<S, T>(carver, args.conv);
  for (int64_t c = 0; c < args.conv.channels + kPanel<T>; ++c) {
    space.start[c] = args.bias != nullptr && c < args.conv.channels ? args.bias[c] : T(0);
  }
  if (!args.conv.per_position()) {
    lay_out_shared(args.conv, /*reversed=*/false, space.shared);
  }
  for (int64_t i = 0; i < count; ++i) {
    ForwardTile<S, T>(args, tiles[i], space).run();
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

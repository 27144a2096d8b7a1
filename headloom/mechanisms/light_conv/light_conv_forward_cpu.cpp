#include "headloom/mechanisms/light_conv/tap_softmax.h"

namespace headloom::kernels::HEADLOOM_ISA {

namespace {

template <class T>
struct ForwardSpace {
  Window<T> window;  // tile_rows + K - 1 rows of x
  T* scratch;  // [tile_rows, panel]
  T* start;    // [C and a panel]: the bias
  T* shared;   // laid out
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

  void pack_input() {
    pack(input_, first_, padded_rows_ + conv_.taps - 1, panels_, space_.window);
  }

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
           conv_.channels % kPanel<T> == 0 && input_.padded == nullptr &&
           first_ >= input_.begin && first_ + padded_rows_ + conv_.taps - 1 <= input_.end;
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

// The weights of one output of one head, normalised, with zeros for the taps left out.
template <class S, class T>
void window_weights(const S* from, int64_t taps, int64_t skipped, bool softmax, T* to) {
  for_each_vector<T>(taps, [&](int64_t k, auto count) HEADLOOM_INLINE_LAMBDA {
    store_at(to + k, count, load_at(from + k, count));
  });
  if (!softmax) {
    return;
  }
  T most = -ExpConstants<T>::kInfinity;
  for (int64_t k = 0; k < taps; ++k) {
    if (k < skipped) {
      to[k] = -ExpConstants<T>::kInfinity;
    }
    most = to[k] > most || to[k] != to[k] ? to[k] : most;
  }
  const Vec<T> shift = finite_shift(set1(most)), log2e = set1(ExpConstants<T>::kLog2E);
  Vec<T> sums = zero<T>();
  for_each_vector<T>(taps, [&](int64_t k, auto count) HEADLOOM_INLINE_LAMBDA {
    const Vec<T> weight = exp2((load_at(to + k, count) - shift) * log2e);
    store_at(to + k, count, weight);
    sums = sums + select(first_lanes<T>(count), weight, zero<T>());
  });
  const Vec<T> inverse = inverse_or_zero(set1(sum_lanes(sums)));
  for_each_vector<T>(taps, [&](int64_t k, auto count) HEADLOOM_INLINE_LAMBDA {
    store_at(to + k, count, load_at(to + k, count) * inverse);
  });
}

// sum_k w[k] rows[k], kVectors vectors of channels; the rows go round the window once at most.
template <int kVectors, class S, class T>
HEADLOOM_INLINE void window_sum(const ConvWindowArgs<S>& args, const S* rows, int64_t first,
                                const T* w, const T* bias, S* y, int64_t channels) {
  constexpr int64_t kChannels = kVectors * kWidth<T>;
  Vec<T> sum[kVectors];
  const auto lanes = [&](auto j) HEADLOOM_INLINE_LAMBDA {
    const int64_t left = channels - j * kWidth<T>;
    return left < 0 ? int64_t{0} : left < kWidth<T> ? left : int64_t{kWidth<T>};
  };
  unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
    sum[j] = bias == nullptr ? zero<T>() : load_partial(bias + j * kWidth<T>, lanes(j));
  });
  const int64_t before_wrap = smaller(args.taps, args.capacity - first);
  for (int64_t k = 0; k < args.taps; ++k) {
    const int64_t place = k < before_wrap ? first + k : first + k - args.capacity;
    const S* row = rows + place * args.window_time_stride;
    const Vec<T> weight = set1(w[k]);
    if (channels >= kChannels) {
      unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
        sum[j] = fma(weight, load(row + j * kWidth<T>), sum[j]);
      });
    } else {
      unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
        sum[j] = fma(weight, load_partial(row + j * kWidth<T>, lanes(j)), sum[j]);
      });
    }
  }
  unroll<kVectors>([&](auto j)
                       HEADLOOM_INLINE_LAMBDA { store_partial(y + j * kWidth<T>, lanes(j), sum[j]); });
}

template <class S>
void window(const ConvWindowArgs<S>& args) {
  using T = accumulator_t<S>;
  constexpr int kVectors = 4;
  T weights[kMaxTaps + 1];
  const int64_t per_head = args.channels / args.heads;
  for (int64_t b = 0; b < args.batch; ++b) {
    for (int64_t i = 0; i < args.outputs; ++i) {
      const int64_t first = (args.first + i) % args.capacity;
      for (int64_t h = 0; h < args.heads; ++h) {
        window_weights(args.weights + b * args.weights_batch_stride + i * args.weights_time_stride +
                           h * args.weights_head_stride,
                       args.taps, larger(0, args.skip - i), args.softmax, weights);
        for (int64_t c = h * per_head; c < (h + 1) * per_head; c += kVectors * kWidth<T>) {
          window_sum<kVectors>(args, args.window + b * args.window_batch_stride + c, first, weights,
                               args.bias == nullptr ? nullptr : args.bias + c,
                               args.y + b * args.y_batch_stride + i * args.y_time_stride + c,
                               (h + 1) * per_head - c);
        }
      }
    }
  }
}

template <class S>
constexpr ConvForwardKernels<S> kKernels = {workspace_bytes<S>, run<S>, window<S>};

}  // namespace

extern const ConvForwardTable conv_forward_table;
const ConvForwardTable conv_forward_table = {kKernels<double>, kKernels<float>, kKernels<BFloat16>,
                                             kKernels<Half>};

}  // namespace headloom::kernels::HEADLOOM_ISA

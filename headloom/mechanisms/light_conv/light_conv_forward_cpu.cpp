#include "headloom/mechanisms/light_conv/tap_softmax.h"

namespace headloom::kernels::HEADLOOM_ISA {

namespace {

template <class T>
struct ForwardSpace {
  T* window;   // [tile_rows + K - 1, panel]
  T* scratch;  // [tile_rows, panel]
  T* start;    // [C and a panel]: the bias
  T* lanes;    // shared weights a lane
  TapTile<T> taps;
  uint8_t* in_range;
};

template <class S, class T>
ForwardSpace<T> carve(Carver& carver, const ConvArgs<S>& args) {
  ForwardSpace<T> space{};
  const int64_t rows = round_up(args.tile_rows, kTileQuantum);
  space.window = carver.take<T>((rows + args.taps) * kPanel<T>);
  space.scratch = carver.take<T>(rows * kPanel<T>);
  space.start = carver.take<T>(args.channels + kPanel<T>);
  if (args.per_position()) {
    space.taps = carve_taps<S, T>(carver, args, rows);
    space.in_range = carver.take<uint8_t>(rows + args.taps + kVectorBytes);
    space.taps.in_range = space.in_range;
  } else if (!one_head_a_panel(args)) {
    space.lanes = carver.take<T>(round_up(args.channels, kPanel<T>) * args.taps);
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
    input_ = input_rows(conv_, tile);
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
    const int64_t per_head = conv_.channels / conv_.heads;
    for_each_panel<T>(0, conv_.channels, [&](Panel panel) HEADLOOM_INLINE_LAMBDA {
      BandArgs<T> band{};
      band.w_block = 0;
      if (space_.lanes == nullptr) {
        band.w = conv_.shared + panel.channel / per_head * conv_.taps;
        band.w_row = 1;
        band.w_output = -1;
        multiply(panel, band, product_for<T, false>(conv_.taps, panel.width));
      } else {
        band.w = space_.lanes + panel.channel * conv_.taps;
        band.w_row = panel.width;
        band.w_output = -panel.width;
        multiply(panel, band, product_for<T, true>(conv_.taps, panel.width));
      }
    });
  }

  void per_position() {
    const int64_t per_head = conv_.channels / conv_.heads;
    TapTile<T> taps = space_.taps;
    taps.first = tile_.begin;
    taps.count = padded_rows_;
    if (conv_.renorm) {
      mark_range(input_, tile_.begin - conv_.left, padded_rows_ + conv_.taps - 1, space_.in_range);
    }
    for (int64_t head = 0; head < conv_.heads; ++head) {
      fill_taps(conv_, tile_, head, taps, conv_.tile_rows);
      for_each_panel<T>(
          head * per_head, (head + 1) * per_head, [&](Panel panel) HEADLOOM_INLINE_LAMBDA {
            BandArgs<T> band{};
            band.w = taps.dropped;
            band.w_row = taps.stride;
            band.w_output = 1 - taps.stride;
            band.w_block = kBandRows;
            multiply(panel, band, product_for<T, false>(conv_.taps, panel.width));
          });
    }
  }

  // y's panel, with weights that `band` describes.
  void multiply(const Panel& panel, BandArgs<T>& band, BandPanel<T> product) {
    const int64_t first = tile_.begin - conv_.left;
    const int64_t window_rows = padded_rows_ + conv_.taps - 1;
    band.taps = conv_.taps;
    band.start = space_.start + panel.channel;
    if (reads_in_place(panel, first, window_rows)) {
      band.x = in_place(first, panel.channel);
      band.x_stride = input_.stride;
    } else {
      pack_panel(input_, first, window_rows, panel.channel, panel.channels, panel.width,
                 space_.window);
      band.x = space_.window;
      band.x_stride = panel.width;
    }
    constexpr auto kBytes = static_cast<int64_t>(sizeof(S));
    band.ahead[0] = {
        reinterpret_cast<const char*>(input_.at(first + window_rows) + panel.channel),
        input_.stride * kBytes, panel.channels * kBytes};
    run_panel(product, band, panel.width,
              PanelSink<S>{y_ + tile_.begin * conv_.channels + panel.channel, conv_.channels, rows_,
                           panel.channels, args_.streamed},
              space_.scratch);
  }

  // Few taps do not pay for a copy of their rows, where the rows can be used as they are.
  bool reads_in_place(const Panel& panel, int64_t first, int64_t count) const {
    return sizeof(S) == sizeof(T) && conv_.taps <= 15 && !args_.streamed &&
           panel.channels == panel.width && input_.padded == nullptr && first >= input_.begin &&
           first + count <= input_.end;
  }

  const T* in_place(int64_t first, int64_t channel) const {
    if constexpr (sizeof(S) == sizeof(T)) {
      return input_.at(first) + channel;
    } else {
      return nullptr;
    }
  }

  const ConvForwardArgs<S>& args_;
  const ConvArgs<S>& conv_;
  const ConvTile& tile_;
  const ForwardSpace<T>& space_;
  Rows<S> input_;
  int64_t rows_, padded_rows_;
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
  if (space.lanes != nullptr) {
    spread_shared(args.conv, space.lanes);
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

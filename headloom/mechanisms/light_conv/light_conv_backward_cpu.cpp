#include "headloom/kernels/banded_gradient.h"
#include "headloom/kernels/gemm_tile.h"
#include "headloom/mechanisms/light_conv/tap_softmax.h"

// With g the gradient of y and w the weights that were applied:
//
//   grad_x[s] = sum_k w[s - k + P, k] g[s - k + P]     a banded product: row r of g reaches s with
//                                                      the tap K - 1 - r, P' = K - 1 - P ahead
//   grad_w[t, k] = sum_c g[t, c] x[t + k - P, c]
//
// For weights of each position, grad_w is the band of a product of two tiles, G X^T. Weights that
// all positions share are summed over positions with channels in the lanes, and over channels once.
namespace headloom::kernels::HEADLOOM_ISA {

namespace {

template <class T>
struct BackwardSpace {
  int64_t rows;  // tile_rows
  // rows + K - 1 of g and of x, and as many more as kernels overreach; of x, one panel at a time
  // with weights of each position
  Window<T> grad, input;
  T* scratch;            // [rows, panel]
  T* start;              // zeros
  T* shared;             // laid out, reversed
  T* sums;               // [panels, gradient_sums(K), panel]
  TapTile<T> taps;       // of rows + K - 1 positions
  T* transposed;         // [panel, transposed_stride]: x
  T* products;           // [rows, product_columns]: G X^T
  T *weights, *dropped;  // [kTileQuantum, tap_columns]: rows of taps and their multipliers
  uint8_t* in_range;
  int64_t transposed_stride, product_rows, product_columns, tap_columns;
};

// Rows of G in one product G X^T: the fewer, the larger the share of the product that is the band,
// unless the vectors of X leave room for more.
template <class T>
HEADLOOM_INLINE int64_t product_rows(int64_t taps) {
  const auto columns = [&](int64_t rows)
                           HEADLOOM_INLINE_LAMBDA { return round_up(rows + taps - 1, kWidth<T>); };
  return columns(16) == columns(8) ? 16 : 8;
}

template <class S, class T>
void carve_per_position(Carver& carver, const ConvArgs<S>& args, BackwardSpace<T>& space) {
  const int64_t window = space.rows + args.taps;
  space.taps = carve_taps<S, T>(carver, args, window);
  space.in_range = carver.take<uint8_t>(window + args.taps + kTileQuantum + kVectorBytes);
  space.taps.in_range = space.in_range;
  space.product_rows = product_rows<T>(args.taps);
  space.product_columns = round_up(space.product_rows + args.taps - 1, kWidth<T>);
  space.transposed_stride = tap_stride<T>(space.rows + space.product_columns);
  space.transposed = carver.take<T>(kPanel<T> * space.transposed_stride);
  space.products = carver.take<T>(space.rows * space.product_columns);
  space.tap_columns = round_up(args.taps, kWidth<T>);
  space.weights = carver.take<T>(kTileQuantum * space.tap_columns);
  space.dropped = carver.take<T>(kTileQuantum * space.tap_columns);
}

template <class S, class T>
BackwardSpace<T> carve(Carver& carver, const ConvBackwardArgs<S>& given) {
  const ConvArgs<S>& args = given.conv;
  BackwardSpace<T> space{};
  space.rows = round_up(args.tile_rows, kTileQuantum);
  const int64_t window = space.rows + gradient_sums(args.taps) + kTileQuantum;
  const int64_t lanes = panels_of(args).lanes();
  space.grad = carve_window<T>(carver, lanes, window);
  space.input = carve_window<T>(carver, args.per_position() ? kPanel<T> : lanes, window);
  space.scratch = carver.take<T>(space.rows * kPanel<T>);
  space.start = carver.take<T>(kPanel<T>);
  if (args.per_position()) {
    carve_per_position<S, T>(carver, args, space);
    return space;
  }
  space.shared = carver.take<T>(shared_elements(args));
  space.sums =
      given.grad_shared == nullptr ? nullptr : carver.take<T>(lanes * gradient_sums(args.taps));
  return space;
}

template <class S>
int64_t workspace_bytes(const ConvBackwardArgs<S>& args) {
  Carver carver(nullptr);
  carve<S, accumulator_t<S>>(carver, args);
  return carver.used();
}

// One tile of positions: g and the weights of each, and the gradient of x as the outputs see it.
template <class S, class T>
class BackwardTile {
 public:
  BackwardTile(const ConvBackwardArgs<S>& args, const ConvTile& tile, const BackwardSpace<T>& space)
      : args_(args), conv_(args.conv), tile_(tile), space_(space) {
    panels_ = panels_of(conv_);
    input_ = input_rows(conv_, tile);
    grad_ = {args.grad_y + tile.batch * args.grad_y_batch_stride,
             args.grad_y_time_stride,
             tile.first,
             tile.last,
             0,
             padding_of(conv_, tile)};
    rows_ = tile.end - tile.begin;
    padded_rows_ = round_up(rows_, kTileQuantum);
    ahead_ = conv_.taps - 1 - conv_.left;
    first_grad_ = tile.begin - ahead_;
    first_input_ = tile.begin - conv_.left;
  }

  void run() {
    conv_.per_position() ? per_position() : shared();
    if (args_.grad_x != nullptr) {
      clear_padding(input_.padded, larger(tile_.begin, input_.begin), tile_.end, conv_.delay,
                    grad_x_row(conv_.delay), conv_.channels);
    }
  }

 private:
  void shared() {
    const int64_t taps = conv_.taps;
    pack_windows(/*wants_input=*/space_.sums != nullptr);
    panels_.for_each([&](Panel panel) HEADLOOM_INLINE_LAMBDA {
      BandArgs<T> band{};
      const BandPanel<T> product = shared_product<T>(conv_, space_.shared, panel, &band.w);
      grad_input(panel, band, product);
      grad_bias(panel);
      if (space_.sums != nullptr) {
        banded_gradient(own_grad(panel), space_.input.of(panel), padded_rows_, taps, panel.width,
                        space_.sums + panel.lane * gradient_sums(taps));
      }
    });
  }

  void per_position() {
    TapTile<T> taps = space_.taps;
    taps.first = first_grad_;
    taps.count = round_up(padded_rows_ + conv_.taps - 1, kTileQuantum);
    if (conv_.renorm) {
      mark_range(input_, first_grad_ - conv_.left, taps.count + conv_.taps - 1, space_.in_range);
    }
    const bool wants_weights = args_.grad_logits != nullptr || args_.grad_shared != nullptr;
    pack_windows(/*wants_input=*/false);
    for (int64_t head = 0; head < conv_.heads; ++head) {
      fill_taps(conv_, tile_, head, taps, conv_.tile_rows);
      bool add = false;
      panels_.for_each_of(head, [&](Panel panel) HEADLOOM_INLINE_LAMBDA {
        BandArgs<T> band{};
        band.w = taps.dropped + (conv_.taps - 1) * taps.stride;
        band.w_row = 1 - taps.stride;
        band.w_output = taps.stride;
        band.w_block = kBandRows;
        grad_input(panel, band, product_for<T, BandWeights::kPerPosition>(conv_.taps, panel.width));
        grad_bias(panel);
        if (wants_weights) {
          multiply_tiles(panel, add);
          add = true;
        }
      });
      for (int64_t row = 0; row < rows_ && wants_weights; row += kTileQuantum) {
        grad_weights(head, taps, row);
      }
    }
  }

  void pack_windows(bool wants_input) {
    const int64_t count = padded_rows_ + conv_.taps - 1;
    pack(grad_, first_grad_, count, panels_, space_.grad);
    if (wants_input) {
      pack(input_, first_input_, count, panels_, space_.input);
    }
  }

  void grad_bias(const Panel& panel) {
    if (args_.grad_bias == nullptr) {
      return;
    }
    const T* rows = own_grad(panel);
    for_each_vector<T>(panel.channels, [&](int64_t c, auto count) HEADLOOM_INLINE_LAMBDA {
      Vec<T> sum = zero<T>();
      for (int64_t i = 0; i < rows_; ++i) {
        sum = sum + load(rows + i * panel.width + c);
      }
      T* total = args_.grad_bias + panel.channel + c;
      store_at(total, count, load_at(total, count) + sum);
    });
  }

  // The tile's own rows of g, within the window.
  const T* own_grad(const Panel& panel) const {
    return space_.grad.of(panel) + ahead_ * panel.width;
  }

  S* grad_x_row(int64_t u) const {
    return args_.grad_x + (tile_.batch * conv_.time + u - conv_.delay) * conv_.channels;
  }

  // `band` has the weights as they are for the tile's first position.
  void grad_input(const Panel& panel, BandArgs<T>& band, BandPanel<T> product) {
    const int64_t begin = larger(tile_.begin, input_.begin);
    if (args_.grad_x == nullptr || begin >= tile_.end) {
      return;
    }
    const int64_t skipped = begin - tile_.begin;
    band.taps = conv_.taps;
    band.start = space_.start;
    band.x = space_.grad.of(panel) + skipped * panel.width;
    band.x_stride = panel.width;
    band.w += band.w_block == 0 ? 0 : skipped;
    const int64_t window = padded_rows_ + conv_.taps - 1;
    band.ahead[0] = rows_ahead(grad_, first_grad_ + window, padded_rows_, conv_.channels, panel);
    band.ahead[1] = rows_ahead(input_, first_input_ + window, padded_rows_, conv_.channels, panel);
    run_panel(product, band, panel.width,
              PanelSink<S>{grad_x_row(begin) + panel.channel, conv_.channels, tile_.end - begin,
                           panel.channels, args_.streamed},
              space_.scratch);
  }

  // products[i, j + i mod product_rows] (+)= <g[i], x[i + j - P]> over the panel's channels: the
  // band of each row begins as many columns in as the row stands in its product.
  void multiply_tiles(const Panel& panel, bool add) {
    transpose_input(panel);
    for (int64_t row = 0; row < rows_; row += space_.product_rows) {
      const GemmArgs<T> product{smaller(space_.product_rows, rows_ - row),
                                space_.product_columns,
                                panel.channels,
                                own_grad(panel) + row * panel.width,
                                panel.width,
                                1,
                                space_.transposed + row,
                                space_.transposed_stride,
                                space_.products + row * space_.product_columns,
                                space_.product_columns};
      add ? gemm_tile(product, Accumulate{}) : gemm_tile(product, Assign{});
    }
  }

  void transpose_input(const Panel& panel) {
    const int64_t count = padded_rows_ + conv_.taps - 1;
    if (input_.plain(first_input_, count)) {
      transpose_tile<S, T>(input_.at(first_input_) + panel.channel, input_.stride, count,
                           panel.channels, space_.transposed, space_.transposed_stride);
    } else {
      pack_panel(input_, first_input_, count, panel, space_.input.data);
      transpose_tile<T, T>(space_.input.data, panel.width, count, panel.channels, space_.transposed,
                           space_.transposed_stride);
    }
  }

  // Through DropConnect and softmax, for kTileQuantum rows of the tile.
  void grad_weights(int64_t head, const TapTile<T>& taps, int64_t row) {
    const int64_t rows = smaller(kTileQuantum, rows_ - row);
    const int64_t columns = space_.tap_columns;
    const auto by_position = [&](const T* lanes, T* to) HEADLOOM_INLINE_LAMBDA {
      transpose_tile<T, T>(lanes + ahead_ + row, taps.stride, conv_.taps, rows, to, columns);
    };
    by_position(taps.normalised, space_.weights);
    if (conv_.drop.active) {
      by_position(taps.multiplier, space_.dropped);
    }
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t u = tile_.begin + row + i;
      T* grad =
          space_.products + (row + i) * space_.product_columns + (row + i) % space_.product_rows;
      if (conv_.drop.active) {
        const T* multiplier = space_.dropped + i * columns;
        for_each_vector<T>(conv_.taps, [&](int64_t k, auto count) HEADLOOM_INLINE_LAMBDA {
          store_at(grad + k, count, load_at(grad + k, count) * load_at(multiplier + k, count));
        });
      }
      if (args_.grad_shared != nullptr) {
        add_row(args_.grad_shared + head * conv_.taps, grad);
      } else {
        write_row(
            space_.weights + i * columns, grad, grad_.hidden(u),
            args_.grad_logits + ((tile_.batch * conv_.time + u) * conv_.heads + head) * conv_.taps);
      }
    }
  }

  void add_row(T* total, const T* grad) {
    for_each_vector<T>(conv_.taps, [&](int64_t k, auto count) HEADLOOM_INLINE_LAMBDA {
      store_at(total + k, count, load_at(total + k, count) + load_at(grad + k, count));
    });
  }

  // grad_logits = w (grad - sum_k w grad).
  void write_row(const T* w, const T* grad, bool hidden, S* to) {
    if (hidden) {
      __builtin_memset(to, 0, static_cast<size_t>(conv_.taps) * sizeof(S));
      return;
    }
    if (!conv_.softmax) {
      for_each_vector<T>(conv_.taps, [&](int64_t k, auto count) HEADLOOM_INLINE_LAMBDA {
        store_at(to + k, count, load_at(grad + k, count));
      });
      return;
    }
    Vec<T> products = zero<T>();
    for_each_vector<T>(conv_.taps, [&](int64_t k, auto count) HEADLOOM_INLINE_LAMBDA {
      products = fma(load_at(w + k, count), load_at(grad + k, count), products);
    });
    const Vec<T> mean = set1(sum_lanes(products));
    for_each_vector<T>(conv_.taps, [&](int64_t k, auto count) HEADLOOM_INLINE_LAMBDA {
      store_at(to + k, count, load_at(w + k, count) * (load_at(grad + k, count) - mean));
    });
  }

  const ConvBackwardArgs<S>& args_;
  const ConvArgs<S>& conv_;
  const ConvTile& tile_;
  const BackwardSpace<T>& space_;
  Panels<T> panels_;
  Rows<S> input_, grad_;
  int64_t rows_, padded_rows_;
  int64_t ahead_;                     // P': rows of the window of g before the tile's own
  int64_t first_grad_, first_input_;  // positions where the windows begin
};

// The sums of each lane, over the channels of each head.
template <class S, class T>
void add_lanes(const ConvArgs<S>& args, const T* sums, T* grad_shared) {
  const int64_t per_head = args.channels / args.heads;
  panels_of(args).for_each([&](Panel panel) HEADLOOM_INLINE_LAMBDA {
    const T* from = sums + panel.lane * gradient_sums(args.taps);
    for (int64_t k = 0; k < args.taps; ++k, from += panel.width) {
      if (per_head % kPanel<T> == 0) {
        Vec<T> sum = load(from);
        for (int64_t lane = kWidth<T>; lane < panel.width; lane += kWidth<T>) {
          sum = sum + load(from + lane);
        }
        grad_shared[panel.channel / per_head * args.taps + k] += sum_lanes(sum);
      } else {
        for (int64_t lane = 0; lane < panel.channels; ++lane) {
          grad_shared[(panel.channel + lane) / per_head * args.taps + k] += from[lane];
        }
      }
    }
  });
}

template <class S>
void run(const ConvBackwardArgs<S>& args, const ConvTile* tiles, int64_t count, void* workspace) {
  using T = accumulator_t<S>;
  Carver carver(workspace);
  const BackwardSpace<T> space = carve<S, T>(carver, args);
  const auto clear = [](T* p, int64_t length) HEADLOOM_INLINE_LAMBDA {
    __builtin_memset(p, 0, static_cast<size_t>(length) * sizeof(T));
  };
  clear(space.start, kPanel<T>);
  if (!args.conv.per_position()) {
    lay_out_shared(args.conv, /*reversed=*/true, space.shared);
  }
  if (space.sums != nullptr) {
    clear(space.sums, panels_of(args.conv).lanes() * gradient_sums(args.conv.taps));
  }
  for (int64_t i = 0; i < count; ++i) {
    BackwardTile<S, T>(args, tiles[i], space).run();
  }
  if (space.sums != nullptr) {
    add_lanes(args.conv, space.sums, args.grad_shared);
  }
  if (args.streamed) {
    stream_fence();
  }
}

template <class S>
constexpr ConvBackwardKernels<S> kKernels = {workspace_bytes<S>, run<S>};

}  // namespace

extern const ConvBackwardTable conv_backward_table;
const ConvBackwardTable conv_backward_table = {kKernels<double>, kKernels<float>,
                                               kKernels<BFloat16>, kKernels<Half>};

}  // namespace headloom::kernels::HEADLOOM_ISA

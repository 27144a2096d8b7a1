#include "headloom/mechanisms/alignment/transport_tile.h"

namespace headloom::kernels::HEADLOOM_ISA {

namespace {

// Keys of a tile of the backward pass, whose two arrays of weights stay in the first-level cache.
constexpr int64_t kKeyTile = 64;
// What the weights of pairs are made of, of one side: shift, weight over sum, mean.
template <class T>
struct Coefficients {
  T *shift, *worth, *mean;

  // Of the points first to first + count - 1; zeros up to `padded`.
  void fill(const T* states, const int64_t* index, int64_t count, int64_t padded, T weight) const {
    for (int64_t i = 0; i < padded; ++i) {
      shift[i] = worth[i] = mean[i] = 0;
    }
    for (int64_t i = 0; i < count; ++i) {
      const T* state = states + index[i] * kTransportState;
      shift[i] = state[0];
      worth[i] = weight / state[1];
      mean[i] = state[2];
    }
  }
};

// Widths of gradient rows: whole vectors.
template <class S>
int64_t padded_r(const TransportArgs<S>& args) {
  return round_up(args.r, kWidth<accumulator_t<S>>);
}
template <class S>
int64_t padded_p(const TransportArgs<S>& args) {
  return round_up(args.p, kWidth<accumulator_t<S>>);
}

// One panel of queries against one tile of keys at a time.
template <class S>
struct BackwardTile {
  using T = accumulator_t<S>;
  int64_t r, p, rp, pp;  // widths, and whole vectors of them
  T *u, *f, *f_half;     // panels
  T *u_rows, *f_rows;    // [kPanel, rp], [kPanel, pp]
  T *grad_u, *grad_f;    // [r, kPanel], [p, kPanel]
  T* row_weight;         // [kPanel]: sum_j of `w`, Euclidean cost
  T *a, *w;              // [kKeyTile, kPanel]
  T* key_weight;         // [keys][kWidth]: sums of `w` over queries, Euclidean cost
  Coefficients<T> query, key;
  T* grad_v;  // [keys, rp]
  T* grad_g;  // [keys, pp]

  static int64_t size(const TransportArgs<S>& args) {
    const int64_t widths = padded_r(args) + padded_p(args);
    return kPanel<T> * (3 * widths + 2 * kKeyTile + 8) +
           args.keys.points * (3 + kWidth<T>)+32 * kWidth<T>;
  }
  BackwardTile(const Head<S>& h, T* partial, Pieces<T>& pieces)
      : r(h.args.r), p(h.args.p), rp(padded_r(h.args)), pp(padded_p(h.args)) {
    constexpr int64_t n = kPanel<T>;
    u = pieces.take(n * r);
    f = pieces.take(n * p);
    f_half = pieces.take(n);
    u_rows = pieces.take(n * rp);
    f_rows = pieces.take(n * pp);
    grad_u = pieces.take(n * r);
    grad_f = pieces.take(n * p);
    row_weight = pieces.take(n);
    a = pieces.take(kKeyTile * n);
    w = pieces.take(kKeyTile * n);
    key_weight = pieces.take(h.keys * kWidth<T>);
    query = {pieces.take(n), pieces.take(n), pieces.take(n)};
    key = {pieces.take(h.keys), pieces.take(h.keys), pieces.take(h.keys)};
    grad_v = partial;
    grad_g = partial + h.args.keys.points * rp;
  }
};

template <class T>
void clear(T* p, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    p[i] = 0;
  }
}

// A and W of one panel of queries and `keys` keys from `begin` on.
template <bool kShared, bool kEuclidean, class S>
void pair_weights(const Points<S>& points, BackwardTile<S>& t, int64_t queries, int64_t begin,
                  int64_t keys) {
  using T = accumulator_t<S>;
  Vec<T> start[kPanelVectors], shift[kPanelVectors], worth[kPanelVectors], mean[kPanelVectors];
  Vec<T> row_weight[kPanelVectors];
  lane_starts(queries, kShared ? -points.bound : T(0), start);
  unroll<kPanelVectors>([&](auto q) HEADLOOM_INLINE_LAMBDA {
    shift[q] = load(t.query.shift + q * kWidth<T>);
    worth[q] = load(t.query.worth + q * kWidth<T>);
    mean[q] = load(t.query.mean + q * kWidth<T>);
    row_weight[q] = load(t.row_weight + q * kWidth<T>);
  });
  for_each_block(keys, [&](int64_t j, auto count) HEADLOOM_INLINE_LAMBDA {
    PairBlock<T, count> s, x;
    const int64_t at = begin + j;
    logits<count>(s, points.v + at * t.r, t.r, t.u, start);
    if constexpr (kShared) {
      unroll<count>([&](auto k) HEADLOOM_INLINE_LAMBDA {
        unroll<kPanelVectors>([&](auto q) HEADLOOM_INLINE_LAMBDA { s[k][q] = exp2(s[k][q]); });
      });
    }
    values<kEuclidean, count>(x, points.g + at * t.p, points.g_half + at, t.p, t.f, t.f_half);
    unroll<count>([&](auto k) HEADLOOM_INLINE_LAMBDA {
      const Vec<T> key_worth = broadcast(t.key.worth + at + k);
      const Vec<T> key_mean = broadcast(t.key.mean + at + k);
      Vec<T> key_weight = zero<T>();
      unroll<kPanelVectors>([&](auto q) HEADLOOM_INLINE_LAMBDA {
        Vec<T> a, w;
        const Vec<T> from_row = worth[q] * (x[k][q] - mean[q]);
        const Vec<T> from_column = x[k][q] - key_mean;
        if constexpr (kShared) {
          a = s[k][q] * fma(key_worth, from_column, from_row);
          w = s[k][q] * (worth[q] + key_worth);
        } else {
          const Vec<T> row = exp2(s[k][q] - shift[q]);
          const Vec<T> column = exp2(s[k][q] - broadcast(t.key.shift + at + k)) * key_worth;
          a = fma(row, from_row, column * from_column);
          w = fma(row, worth[q], column);
        }
        if constexpr (kEuclidean) {
          const Vec<T> smallest = sqrt(set1(static_cast<T>(kSmallestSquare)));
          w = select(smallest < x[k][q], -w / x[k][q], zero<T>());
          row_weight[q] = row_weight[q] + w;
          key_weight = key_weight + w;
        }
        store(t.a + (j + k) * kPanel<T> + q * kWidth<T>, a);
        store(t.w + (j + k) * kPanel<T> + q * kWidth<T>, w);
      });
      if constexpr (kEuclidean) {
        T* sum = t.key_weight + (at + k) * kWidth<T>;
        store(sum, load(sum) + key_weight);
      }
    });
  });
  unroll<kPanelVectors>(
      [&](auto q) HEADLOOM_INLINE_LAMBDA { store(t.row_weight + q * kWidth<T>, row_weight[q]); });
}

template <bool kShared, bool kEuclidean, class S>
void backward_panel(const Points<S>& points, BackwardTile<S>& t, int64_t queries) {
  for (int64_t begin = 0; begin < points.keys; begin += kKeyTile) {
    const int64_t keys = at_most(points.keys - begin, kKeyTile);
    pair_weights<kShared, kEuclidean>(points, t, queries, begin, keys);
    add_to_queries(points.v + begin * t.r, t.r, keys, t.a, t.grad_u);
    add_to_queries(points.g + begin * t.p, t.p, keys, t.w, t.grad_f);
    add_to_keys(t.a, keys, t.u_rows, t.rp, t.grad_v + begin * t.rp);
    add_to_keys(t.w, keys, t.f_rows, t.pp, t.grad_g + begin * t.pp);
  }
}

// The gradients of the queries of one panel, from [width, kPanel] to their rows.
template <class S>
void write_queries(const Head<S>& h, BackwardTile<S>& t, int64_t first, int64_t count) {
  using T = accumulator_t<S>;
  if (h.args.cost == TransportCost::kEuclidean) {
    for (int64_t d = 0; d < t.p; ++d) {
      for (int64_t i = 0; i < count; ++i) {
        t.grad_f[d * kPanel<T> + i] -= t.row_weight[i] * t.f_rows[i * t.pp + d];
      }
    }
  }
  const int64_t offset = h.head * h.args.queries.points;
  // The rows are not needed any more: their place takes the gradients.
  transpose_tile(t.grad_u, kPanel<T>, t.r, count, t.u_rows, t.rp);
  scatter_rows(t.u_rows, t.rp, t.r, h.query_index + first, count, h.args.grad_u + offset * t.r,
               static_cast<T>(h.args.inverse_temperature));
  transpose_tile(t.grad_f, kPanel<T>, t.p, count, t.f_rows, t.pp);
  scatter_rows(t.f_rows, t.pp, t.p, h.query_index + first, count, h.args.grad_f + offset * t.p,
               T(1));
}

template <class S>
void backward(const TransportArgs<S>& args, int64_t head, int64_t split, accumulator_t<S>* partial,
              accumulator_t<S>* workspace) {
  using T = accumulator_t<S>;
  const Head<S> h(args, head);
  if (h.empty()) {
    return;
  }
  Pieces<T> pieces{workspace};
  const Points<S> points(h, pieces);
  BackwardTile<S> t(h, partial, pieces);
  t.key.fill(h.key_state(), h.key_index, h.keys, h.keys, static_cast<T>(args.key_weight[head]));
  clear(t.grad_v, h.keys * t.rp);
  clear(t.grad_g, h.keys * t.pp);
  clear(t.key_weight, h.keys * kWidth<T>);
  const bool euclidean = args.cost == TransportCost::kEuclidean;
  for (int64_t i = h.begin(split); i < h.begin(split + 1); i += kPanel<T>) {
    const int64_t count = at_most(h.begin(split + 1) - i, kPanel<T>);
    points.panels(h, i, count, t.u, t.f, t.f_half);
    clear(t.u_rows, kPanel<T> * t.rp);
    clear(t.f_rows, kPanel<T> * t.pp);
    gather_rows(h.u(), t.r, h.query_index + i, count, t.u_rows, t.rp);
    gather_rows(h.f(), t.p, h.query_index + i, count, t.f_rows, t.pp);
    t.query.fill(h.query_state(), h.query_index + i, count, kPanel<T>,
                 static_cast<T>(args.query_weight[head]));
    clear(t.grad_u, kPanel<T> * t.r);
    clear(t.grad_f, kPanel<T> * t.p);
    clear(t.row_weight, kPanel<T>);
    with_kind(points.shared, euclidean,
              [&](auto is_shared, auto is_euclidean) HEADLOOM_INLINE_LAMBDA {
                backward_panel<is_shared == 1, is_euclidean == 1>(points, t, count);
              });
    write_queries(h, t, i, count);
  }
  if (euclidean) {
    for (int64_t j = 0; j < h.keys; ++j) {
      const T weight = sum_lanes(load(t.key_weight + j * kWidth<T>));
      for (int64_t d = 0; d < t.p; ++d) {
        t.grad_g[j * t.pp + d] -= weight * points.g[j * t.p + d];
      }
    }
  }
}

template <class S>
void backward_end(const TransportArgs<S>& args, int64_t head, accumulator_t<S>* partials,
                  accumulator_t<S>*) {
  using T = accumulator_t<S>;
  const Head<S> h(args, head);
  if (h.empty()) {
    return;
  }
  const int64_t rp = padded_r(args), pp = padded_p(args), points = args.keys.points;
  const int64_t stride = points * (rp + pp);
  for (int64_t split = 1; split < args.splits; ++split) {
    for (int64_t i = 0; i < stride; i += kWidth<T>) {
      store(partials + i, load(partials + i) + load(partials + split * stride + i));
    }
  }
  scatter_rows(partials, rp, args.r, h.key_index, h.keys, args.grad_v + head * points * args.r,
               static_cast<T>(args.inverse_temperature));
  scatter_rows(partials + points * rp, pp, args.p, h.key_index, h.keys,
               args.grad_g + head * points * args.p, T(1));
}

template <class S>
int64_t workspace(const TransportArgs<S>& args) {
  return Points<S>::size(args) + BackwardTile<S>::size(args);
}
template <class S>
int64_t partial(const TransportArgs<S>& args) {
  return args.keys.points * (padded_r(args) + padded_p(args));
}

template <class S>
constexpr TransportPass<S> kPass = {workspace<S>, partial<S>, backward<S>, backward_end<S>};

}  // namespace

extern const TransportTable transport_backward_table;
const TransportTable transport_backward_table = {kPass<double>, kPass<float>, kPass<BFloat16>,
                                                 kPass<Half>};

}  // namespace headloom::kernels::HEADLOOM_ISA

#include "headloom/mechanisms/alignment/pair_tile.h"

// M queries and N keys that take part, r and p widths of the two products.
namespace headloom::kernels::HEADLOOM_ISA {

namespace {

constexpr double kLog2E = 0x1.71547652b82fep0;

// Keys of which sums over queries are held at once, a vector each for two sums: 64 KiB at most, so
// that they stay in the second-level cache while all queries pass.
constexpr int64_t kKeyChunk = 512;
// Keys of a tile of the backward pass, whose two arrays of weights stay in the first-level cache.
constexpr int64_t kKeyTile = 64;
// Squares of Euclidean distances below this count as it, without a gradient.
constexpr double kSmallestSquare = 1e-12;
// Bounds of |logit| in base 2 up to which no shifted exponential vanishes: 2^(-2 bound) and sums of
// its products with x are normal numbers.
template <class T>
constexpr T kSharedBound = sizeof(T) == 8 ? T(480) : T(56);

// One head of a call.
template <class S>
struct Head {
  using T = accumulator_t<S>;
  const TransportArgs<S>& args;
  int64_t head, queries, keys;  // how many take part
  const int64_t *query_index, *key_index;

  Head(const TransportArgs<S>& given, int64_t number) : args(given), head(number) {
    const int64_t batch = number / given.heads;
    queries = given.queries.count[batch];
    keys = given.keys.count[batch];
    query_index = given.queries.index + batch * given.queries.points;
    key_index = given.keys.index + batch * given.keys.points;
  }
  bool empty() const { return queries == 0 || keys == 0; }

  const S* u() const { return args.u + head * args.queries.points * args.r; }
  const S* f() const { return args.f + head * args.queries.points * args.p; }
  const S* v() const { return args.v + head * args.keys.points * args.r; }
  const S* g() const { return args.g + head * args.keys.points * args.p; }
  T* query_state() const {
    return args.query_state + head * args.queries.points * kTransportState;
  }
  T* key_state() const { return args.key_state + head * args.keys.points * kTransportState; }
  T factor() const { return static_cast<T>(args.inverse_temperature * kLog2E); }

  // The queries of a range begin and end at whole panels.
  int64_t begin(int64_t split) const {
    const int64_t panels = (queries + kPanel<T> - 1) / kPanel<T>;
    return at_most(panels * split / args.splits * kPanel<T>, queries);
  }
};

// Cuts a workspace into pieces that begin at whole vectors.
template <class T>
struct Pieces {
  T* next;
  T* take(int64_t count) {
    T* piece = next;
    next += round_up(count, kWidth<T>);
    return piece;
  }
};

template <class S>
accumulator_t<S> largest_square_of(const S* from, int64_t width, const int64_t* index,
                                   int64_t count) {
  using T = accumulator_t<S>;
  T most = 0;
  for (int64_t i = 0; i < count; ++i) {
    Vec<T> sum = zero<T>();
    const S* row = from + index[i] * width;
    for_each_vector<T>(width, [&](int64_t d, auto lanes) HEADLOOM_INLINE_LAMBDA {
      const Vec<T> x = load_at(row + d, lanes);
      sum = fma(x, x, sum);
    });
    const T square = sum_lanes(sum);
    most = square > most ? square : most;
  }
  return most;
}

// An upper bound of |logit| in base 2.
template <class S>
accumulator_t<S> logit_bound(const Head<S>& h) {
  const auto u = largest_square_of(h.u(), h.args.r, h.query_index, h.queries);
  const auto v = largest_square_of(h.v(), h.args.r, h.key_index, h.keys);
  // 1 + 2^-10: the norms are rounded.
  const double bound = __builtin_sqrt(static_cast<double>(u) * static_cast<double>(v));
  return static_cast<accumulator_t<S>>(bound * static_cast<double>(h.factor()) * (1 + 0x1p-10));
}

// The panels of one range of queries, and all keys.
template <class S>
struct Points {
  using T = accumulator_t<S>;
  int64_t keys;
  T *v, *g;         // [keys, r], [keys, p]
  T* g_half;        // [keys]: -|g|^2 / 2, Euclidean cost
  T* rows;          // [kPanel, larger of r and p]: of the panel being made
  T bound;          // of |logit|
  bool shared;      // whether both softmaxes share the shift `bound`

  static int64_t size(const TransportArgs<S>& args) {
    const int64_t wide = args.r > args.p ? args.r : args.p;
    return args.keys.points * (args.r + args.p + 1) + kPanel<T> * wide + 4 * kWidth<T>;
  }

  Points(const Head<S>& h, Pieces<T>& pieces) : keys(h.keys) {
    const TransportArgs<S>& args = h.args;
    v = pieces.take(keys * args.r);
    g = pieces.take(keys * args.p);
    g_half = pieces.take(keys);
    rows = pieces.take(kPanel<T> * (args.r > args.p ? args.r : args.p));
    gather_rows(h.v(), args.r, h.key_index, keys, v, args.r);
    gather_rows(h.g(), args.p, h.key_index, keys, g, args.p);
    bound = logit_bound(h);
    shared = bound <= kSharedBound<T>;
    if (args.cost == TransportCost::kEuclidean) {
      for (int64_t j = 0; j < keys; ++j) {
        g_half[j] = T(-0.5) * square_sum(g + j * args.p, args.p);
      }
    }
  }

  // Panels of u, times what takes logits to base 2, and of f; -|f|^2 / 2.
  void panels(const Head<S>& h, int64_t first, int64_t count, T* u, T* f, T* f_half) const {
    const TransportArgs<S>& args = h.args;
    gather_rows(h.u(), args.r, h.query_index + first, count, rows, args.r);
    make_panel(rows, args.r, count, args.r, h.factor(), u);
    gather_rows(h.f(), args.p, h.query_index + first, count, rows, args.p);
    make_panel(rows, args.p, count, args.p, T(1), f);
    for (int64_t i = 0; i < kPanel<T>; ++i) {
      f_half[i] = i < count ? T(-0.5) * square_sum(rows + i * args.p, args.p) : T(0);
    }
  }
};

// Logits of kKeys keys and a panel of queries, from `start` on.
template <int kKeys, class T>
HEADLOOM_INLINE void logits(PairBlock<T, kKeys>& s, const T* v, int64_t r, const T* u,
                            const Vec<T> (&start)[kPanelVectors]) {
  unroll<kKeys>([&](auto k) HEADLOOM_INLINE_LAMBDA {
    unroll<kPanelVectors>([&](auto q) HEADLOOM_INLINE_LAMBDA { s[k][q] = start[q]; });
  });
  add_products<kKeys>(s, v, r, u, r);
}

// x of kKeys keys and a panel of queries.
template <bool kEuclidean, int kKeys, class T>
HEADLOOM_INLINE void values(PairBlock<T, kKeys>& x, const T* g, const T* g_half, int64_t p,
                            const T* f, const T* f_half) {
  unroll<kKeys>([&](auto k) HEADLOOM_INLINE_LAMBDA {
    unroll<kPanelVectors>([&](auto q) HEADLOOM_INLINE_LAMBDA {
      x[k][q] = zero<T>();
      if constexpr (kEuclidean) {
        x[k][q] = broadcast(g_half + k) + load(f_half + q * kWidth<T>);
      }
    });
  });
  add_products<kKeys>(x, g, p, f, p);
  if constexpr (kEuclidean) {
    unroll<kKeys>([&](auto k) HEADLOOM_INLINE_LAMBDA {
      unroll<kPanelVectors>([&](auto q) HEADLOOM_INLINE_LAMBDA {
        x[k][q] = sqrt(max(x[k][q] * set1(T(-2)), set1(static_cast<T>(kSmallestSquare))));
      });
    });
  }
}

// Forward.

// Panels of queries that a range holds at once, with their running sums.
template <class S>
struct ForwardPanels {
  using T = accumulator_t<S>;
  int64_t first, count;  // queries of the range
  T *u, *f;              // [panels][r][kPanel], [panels][p][kPanel]
  T *f_half, *shift, *sum, *mean;  // [panels][kPanel]

  static int64_t size(const TransportArgs<S>& args) {
    const int64_t padded = round_up(args.queries.points, kPanel<T>) + kPanel<T>;
    return padded * (args.r + args.p + 4);
  }
  ForwardPanels(const Head<S>& h, int64_t split, const Points<S>& points, Pieces<T>& pieces)
      : first(h.begin(split)), count(h.begin(split + 1) - first) {
    const int64_t padded = round_up(count, kPanel<T>);
    u = pieces.take(padded * h.args.r);
    f = pieces.take(padded * h.args.p);
    f_half = pieces.take(padded);
    shift = pieces.take(padded);
    sum = pieces.take(padded);
    mean = pieces.take(padded);
    for (int64_t i = 0; i < count; i += kPanel<T>) {
      points.panels(h, first + i, at_most(count - i, kPanel<T>), u + i * h.args.r,
                    f + i * h.args.p, f_half + i);
    }
    for (int64_t i = 0; i < padded; ++i) {
      shift[i] = points.shared ? points.bound : 0;
      sum[i] = mean[i] = 0;
    }
  }
};

// Sums over queries of one chunk of keys, a vector a key.
template <class T>
struct KeySums {
  T *sum, *mean;  // [kKeyChunk][kWidth]; a maximum takes the place of sum in the first pass
  T* shift;       // [keys]
};

// The largest logit of each query and key of the range: shifts where none is shared.
template <class S>
void find_shifts(const Head<S>& h, const Points<S>& points, ForwardPanels<S>& panels,
                 KeySums<accumulator_t<S>>& sums) {
  using T = accumulator_t<S>;
  const int64_t r = h.args.r;
  const Vec<T> nothing = set1(-ExpConstants<T>::kInfinity);
  for (int64_t i = 0; i < panels.count; ++i) {
    panels.shift[i] = -ExpConstants<T>::kInfinity;
  }
  for (int64_t begin = 0; begin < points.keys; begin += kKeyChunk) {
    const int64_t keys = at_most(points.keys - begin, kKeyChunk);
    for (int64_t j = 0; j < keys; ++j) {
      store(sums.sum + j * kWidth<T>, nothing);
    }
    for (int64_t i = 0; i < panels.count; i += kPanel<T>) {
      Vec<T> start[kPanelVectors], most[kPanelVectors];
      lane_starts(panels.count - i, T(0), start);
      unroll<kPanelVectors>([&](auto q) HEADLOOM_INLINE_LAMBDA {
        most[q] = load(panels.shift + i + q * kWidth<T>);
      });
      for_each_block(keys, [&](int64_t j, auto count) HEADLOOM_INLINE_LAMBDA {
        PairBlock<T, count> s;
        logits<count>(s, points.v + (begin + j) * r, r, panels.u + i * r, start);
        unroll<count>([&](auto k) HEADLOOM_INLINE_LAMBDA {
          T* column = sums.sum + (j + k) * kWidth<T>;
          Vec<T> largest = load(column);
          unroll<kPanelVectors>([&](auto q) HEADLOOM_INLINE_LAMBDA {
            most[q] = max(s[k][q], most[q]);
            largest = max(s[k][q], largest);
          });
          store(column, largest);
        });
      });
      unroll<kPanelVectors>([&](auto q) HEADLOOM_INLINE_LAMBDA {
        store(panels.shift + i + q * kWidth<T>, max(most[q], set1(-__FLT_MAX__ * T(1))));
      });
    }
    for (int64_t j = 0; j < keys; ++j) {
      sums.shift[begin + j] = max_lanes(load(sums.sum + j * kWidth<T>));
    }
  }
}

// One panel of queries and one chunk of keys.
template <bool kShared, bool kEuclidean, class S>
void forward_panel(const Head<S>& h, const Points<S>& points, ForwardPanels<S>& panels, int64_t i,
                   KeySums<accumulator_t<S>>& sums, int64_t begin, int64_t keys) {
  using T = accumulator_t<S>;
  const int64_t r = h.args.r, p = h.args.p;
  Vec<T> start[kPanelVectors], shift[kPanelVectors], sum[kPanelVectors], mean[kPanelVectors];
  lane_starts(panels.count - i, kShared ? -points.bound : T(0), start);
  unroll<kPanelVectors>([&](auto q) HEADLOOM_INLINE_LAMBDA {
    const int64_t at = i + q * kWidth<T>;
    shift[q] = load(panels.shift + at);
    sum[q] = load(panels.sum + at);
    mean[q] = load(panels.mean + at);
  });
  for_each_block(keys, [&](int64_t j, auto count) HEADLOOM_INLINE_LAMBDA {
    PairBlock<T, count> s, x;
    logits<count>(s, points.v + (begin + j) * r, r, panels.u + i * r, start);
    if constexpr (kShared) {
      unroll<count>([&](auto k) HEADLOOM_INLINE_LAMBDA {
        unroll<kPanelVectors>([&](auto q) HEADLOOM_INLINE_LAMBDA { s[k][q] = exp2(s[k][q]); });
      });
    }
    values<kEuclidean, count>(x, points.g + (begin + j) * p, points.g_half + begin + j, p,
                              panels.f + i * p, panels.f_half + i);
    unroll<count>([&](auto k) HEADLOOM_INLINE_LAMBDA {
      T* key_sum = sums.sum + (j + k) * kWidth<T>;
      T* key_mean = sums.mean + (j + k) * kWidth<T>;
      Vec<T> total = load(key_sum), weighted = load(key_mean);
      unroll<kPanelVectors>([&](auto q) HEADLOOM_INLINE_LAMBDA {
        Vec<T> row = s[k][q], column = s[k][q];
        if constexpr (!kShared) {
          row = exp2(s[k][q] - shift[q]);
          column = exp2(s[k][q] - broadcast(sums.shift + begin + j + k));
        }
        sum[q] = sum[q] + row;
        mean[q] = fma(row, x[k][q], mean[q]);
        total = total + column;
        weighted = fma(column, x[k][q], weighted);
      });
      store(key_sum, total);
      store(key_mean, weighted);
    });
  });
  unroll<kPanelVectors>([&](auto q) HEADLOOM_INLINE_LAMBDA {
    store(panels.sum + i + q * kWidth<T>, sum[q]);
    store(panels.mean + i + q * kWidth<T>, mean[q]);
  });
}

template <bool kShared, bool kEuclidean, class S>
void forward_range(const Head<S>& h, const Points<S>& points, ForwardPanels<S>& panels,
                   KeySums<accumulator_t<S>>& sums, accumulator_t<S>* partial) {
  using T = accumulator_t<S>;
  for (int64_t begin = 0; begin < points.keys; begin += kKeyChunk) {
    const int64_t keys = at_most(points.keys - begin, kKeyChunk);
    for (int64_t i = 0; i < keys * kWidth<T>; ++i) {
      sums.sum[i] = sums.mean[i] = 0;
    }
    for (int64_t i = 0; i < panels.count; i += kPanel<T>) {
      forward_panel<kShared, kEuclidean>(h, points, panels, i, sums, begin, keys);
    }
    for (int64_t j = 0; j < keys; ++j) {
      T* state = partial + (begin + j) * kTransportState;
      state[0] = kShared ? points.bound : sums.shift[begin + j];
      state[1] = sum_lanes(load(sums.sum + j * kWidth<T>));
      state[2] = sum_lanes(load(sums.mean + j * kWidth<T>));
    }
  }
  for (int64_t i = 0; i < panels.count; ++i) {
    T* state = h.query_state() + h.query_index[panels.first + i] * kTransportState;
    state[0] = panels.shift[i];
    state[1] = panels.sum[i];
    state[2] = panels.mean[i] / panels.sum[i];
  }
}

// Calls body(shared, euclidean) with both as Index<0> or Index<1>.
template <class Body>
HEADLOOM_INLINE void with_kind(bool shared, bool euclidean, const Body& body) {
  if (shared) {
    euclidean ? body(Index<1>{}, Index<1>{}) : body(Index<1>{}, Index<0>{});
  } else {
    euclidean ? body(Index<0>{}, Index<1>{}) : body(Index<0>{}, Index<0>{});
  }
}

template <class S>
void forward(const TransportArgs<S>& args, int64_t head, int64_t split, accumulator_t<S>* partial,
             accumulator_t<S>* workspace) {
  using T = accumulator_t<S>;
  const Head<S> h(args, head);
  if (h.empty()) {
    return;
  }
  Pieces<T> pieces{workspace};
  const Points<S> points(h, pieces);
  ForwardPanels<S> panels(h, split, points, pieces);
  KeySums<T> sums{pieces.take(kKeyChunk * kWidth<T>), pieces.take(kKeyChunk * kWidth<T>),
                  pieces.take(h.keys)};
  if (!points.shared) {
    find_shifts(h, points, panels, sums);
  }
  with_kind(points.shared, args.cost == TransportCost::kEuclidean,
            [&](auto shared, auto euclidean) HEADLOOM_INLINE_LAMBDA {
              forward_range<shared == 1, euclidean == 1>(h, points, panels, sums, partial);
            });
}

template <class S>
void forward_end(const TransportArgs<S>& args, int64_t head, accumulator_t<S>* partials,
                 accumulator_t<S>*) {
  using T = accumulator_t<S>;
  const Head<S> h(args, head);
  if (h.empty()) {
    return;
  }
  const int64_t stride = args.keys.points * kTransportState;
  for (int64_t j = 0; j < h.keys; ++j) {
    const T* part = partials + j * kTransportState;
    T shift = part[0];
    for (int64_t split = 1; split < args.splits; ++split) {
      shift = part[split * stride] > shift ? part[split * stride] : shift;
    }
    T sum = 0, mean = 0;
    for (int64_t split = 0; split < args.splits; ++split, part += stride) {
      const T worth = exp2(set1(part[0] - shift)).native[0];
      sum += worth * part[1];
      mean += worth * part[2];
    }
    T* state = h.key_state() + h.key_index[j] * kTransportState;
    state[0] = shift;
    state[1] = sum;
    state[2] = mean / sum;
  }
}

// Backward.

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
  int64_t r, p, rp, pp;    // widths, and whole vectors of them
  T *u, *f, *f_half;       // panels
  T *u_rows, *f_rows;      // [kPanel, rp], [kPanel, pp]
  T *grad_u, *grad_f;      // [r, kPanel], [p, kPanel]
  T* row_weight;           // [kPanel]: sum_j of `w`, Euclidean cost
  T *a, *w;                // [kKeyTile, kPanel]
  T* key_weight;           // [keys][kWidth]: sums of `w` over queries, Euclidean cost
  Coefficients<T> query, key;
  T* grad_v;  // [keys, rp]
  T* grad_g;  // [keys, pp]

  static int64_t size(const TransportArgs<S>& args) {
    const int64_t widths = padded_r(args) + padded_p(args);
    return kPanel<T> * (3 * widths + 2 * kKeyTile + 8) +
           args.keys.points * (3 + kWidth<T>) + 32 * kWidth<T>;
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
          const Vec<T> column =
              exp2(s[k][q] - broadcast(t.key.shift + at + k)) * key_worth;
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
  unroll<kPanelVectors>([&](auto q) HEADLOOM_INLINE_LAMBDA {
    store(t.row_weight + q * kWidth<T>, row_weight[q]);
  });
}

// sums[width, kPanel] += transpose of rows[keys, width] times weights[keys, kPanel]
template <class T>
void add_to_queries(const T* rows, int64_t width, int64_t keys, const T* weights, T* sums) {
  const GemmArgs<T> g{width,   kPanel<T>, keys, rows,      1,   width,
                      weights, kPanel<T>, sums, kPanel<T>, true};
  gemm_tile(g, Accumulate{});
}

// sums[keys, width] += weights[keys, kPanel] times rows[kPanel, width]; width in whole vectors.
template <class T>
void add_to_keys(const T* weights, int64_t keys, const T* rows, int64_t width, T* sums) {
  GemmArgs<T> g{keys,  width, kPanel<T>, weights, kPanel<T>, 1, rows,
                width, sums,  width,     true};
#if defined(HEADLOOM_ISA_avx512)
  // A single vector of columns: as many rows as hide the latency and share its loads.
  if (width == kWidth<T>) {
    constexpr int64_t kRows = 16;
    int64_t row = 0;
    for (; row + kRows <= keys; row += kRows) {
      gemm_block<kRows, 1>(g, row, 0, Index<kWidth<T>>{}, Accumulate{});
    }
    g.m = keys - row;
    g.a += row * kPanel<T>;
    g.c += row * width;
  }
#endif
  gemm_tile(g, Accumulate{});
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
    with_kind(points.shared, euclidean, [&](auto is_shared, auto is_euclidean)
                                            HEADLOOM_INLINE_LAMBDA {
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
  using T = accumulator_t<S>;
  const int64_t to_go = ForwardPanels<S>::size(args) + 2 * kKeyChunk * kWidth<T> +
                        args.keys.points + 16 * kWidth<T>;
  const int64_t to_return = BackwardTile<S>::size(args);
  return Points<S>::size(args) + (to_go > to_return ? to_go : to_return);
}
template <class S>
int64_t forward_partial(const TransportArgs<S>& args) {
  return args.keys.points * kTransportState;
}
template <class S>
int64_t backward_partial(const TransportArgs<S>& args) {
  return args.keys.points * (padded_r(args) + padded_p(args));
}

template <class S>
constexpr TransportKernels<S> kKernels = {workspace<S>,   forward_partial<S>, backward_partial<S>,
                                          forward<S>,     forward_end<S>,     backward<S>,
                                          backward_end<S>};

}  // namespace

extern const TransportTable transport_table;
const TransportTable transport_table = {kKernels<double>, kKernels<float>, kKernels<BFloat16>,
                                        kKernels<Half>};

}  // namespace headloom::kernels::HEADLOOM_ISA

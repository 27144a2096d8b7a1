#pragma once

#include "headloom/mechanisms/alignment/pair_tile.h"
#include "headloom/mechanisms/alignment/transport_kernels.h"

// What both passes of conditional transport share: the points of a head, and the logits s and
// values x of a block of pairs. M queries and N keys that take part, r and p widths.
namespace headloom::kernels::HEADLOOM_ISA {

inline constexpr double kLog2E = 0x1.71547652b82fep0;

// Squares of Euclidean distances below this count as it, without a gradient.
inline constexpr double kSmallestSquare = 1e-12;
// Bounds of |logit| in base 2 up to which no shifted exponential vanishes: 2^(-2 bound) and sums of
// its products with x are normal numbers.
template <class T>
inline constexpr T kSharedBound = sizeof(T) == 8 ? T(480) : T(56);

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
  T* query_state() const { return args.query_state + head * args.queries.points * kTransportState; }
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
  T *v, *g;     // [keys, r], [keys, p]
  T* g_half;    // [keys]: -|g|^2 / 2, Euclidean cost
  T* rows;      // [kPanel, larger of r and p]: of the panel being made
  T bound;      // of |logit|
  bool shared;  // whether both softmaxes share the shift `bound`

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

// Calls body(shared, euclidean) with both as Index<0> or Index<1>.
template <class Body>
HEADLOOM_INLINE void with_kind(bool shared, bool euclidean, const Body& body) {
  if (shared) {
    euclidean ? body(Index<1>{}, Index<1>{}) : body(Index<1>{}, Index<0>{});
  } else {
    euclidean ? body(Index<0>{}, Index<1>{}) : body(Index<0>{}, Index<0>{});
  }
}

}  // namespace headloom::kernels::HEADLOOM_ISA

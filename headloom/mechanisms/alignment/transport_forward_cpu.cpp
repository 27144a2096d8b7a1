#include "headloom/mechanisms/alignment/transport_tile.h"

namespace headloom::kernels::HEADLOOM_ISA {

namespace {

// Keys of which sums over queries are held at once, a vector each for two sums: 64 KiB at most, so
// that they stay in the second-level cache while all queries pass.
constexpr int64_t kKeyChunk = 512;
// Panels of queries that a range holds at once, with their running sums.
template <class S>
struct ForwardPanels {
  using T = accumulator_t<S>;
  int64_t first, count;            // queries of the range
  T *u, *f;                        // [panels][r][kPanel], [panels][p][kPanel]
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
      points.panels(h, first + i, at_most(count - i, kPanel<T>), u + i * h.args.r, f + i * h.args.p,
                    f_half + i);
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
      unroll<kPanelVectors>(
          [&](auto q) HEADLOOM_INLINE_LAMBDA { most[q] = load(panels.shift + i + q * kWidth<T>); });
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

template <class S>
int64_t workspace(const TransportArgs<S>& args) {
  using T = accumulator_t<S>;
  return Points<S>::size(args) + ForwardPanels<S>::size(args) + 2 * kKeyChunk * kWidth<T> +
         args.keys.points + 16 * kWidth<T>;
}
template <class S>
int64_t partial(const TransportArgs<S>& args) {
  return args.keys.points * kTransportState;
}

template <class S>
constexpr TransportPass<S> kPass = {workspace<S>, partial<S>, forward<S>, forward_end<S>};

}  // namespace

extern const TransportTable transport_forward_table;
const TransportTable transport_forward_table = {kPass<double>, kPass<float>, kPass<BFloat16>,
                                                kPass<Half>};

}  // namespace headloom::kernels::HEADLOOM_ISA

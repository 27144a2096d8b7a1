#include "headloom/kernels/online_softmax.h"
#include "headloom/mechanisms/alignment/pair_kernels.h"
#include "headloom/mechanisms/alignment/pair_tile.h"

namespace headloom::kernels::HEADLOOM_ISA {

namespace {

// Keys of a tile that waits in memory.
constexpr int64_t kTileKeys = 64;

template <class T>
void make_panels(const T* rows, int64_t count, int64_t depth, T factor, T* panels) {
  for (int64_t i = 0; i < count; i += kPanel<T>) {
    make_panel(rows + i * depth, depth, at_most(count - i, kPanel<T>), depth, factor,
               panels + i * depth);
  }
}

template <class T>
HEADLOOM_INLINE void load_panel(const T* from, Vec<T> (&to)[kPanelVectors]) {
  unroll<kPanelVectors>([&](auto q) HEADLOOM_INLINE_LAMBDA { to[q] = load(from + q * kWidth<T>); });
}
template <class T>
HEADLOOM_INLINE void store_panel(T* to, const Vec<T> (&from)[kPanelVectors]) {
  unroll<kPanelVectors>([&](auto q) HEADLOOM_INLINE_LAMBDA { store(to + q * kWidth<T>, from[q]); });
}
template <class T>
HEADLOOM_INLINE void clear_panel(Vec<T> (&to)[kPanelVectors]) {
  unroll<kPanelVectors>([&](auto q) HEADLOOM_INLINE_LAMBDA { to[q] = zero<T>(); });
}

// z of kKeys keys from `key` on and one panel of queries.
template <int kKeys, class T>
HEADLOOM_INLINE void exponents(PairBlock<T, kKeys>& z, const PairArgs<T>& args, int64_t panel,
                               int64_t key, const Vec<T> (&query_bias)[kPanelVectors]) {
  unroll<kKeys>([&](auto k) HEADLOOM_INLINE_LAMBDA {
    const Vec<T> bias = broadcast(args.key_bias + key + k);
    unroll<kPanelVectors>([&](auto q) HEADLOOM_INLINE_LAMBDA { z[k][q] = bias + query_bias[q]; });
  });
  add_products<kKeys>(z, args.rows + key * args.depth, args.depth,
                      args.panels + panel * kPanel<T> * args.depth, args.depth);
}

template <class T>
void log_sum(const PairArgs<T>& args, int64_t begin, int64_t end, T* log2_sum) {
  T tile[kTileKeys * kPanel<T>];
  Vec<T> no_bias[kPanelVectors];
  clear_panel(no_bias);
  for (int64_t panel = begin; panel < end; ++panel) {
    OnlineSoftmax<T, kPanelVectors> state;
    state.reset();
    for (int64_t j = 0; j < args.keys; j += kTileKeys) {
      const int64_t keys = at_most(args.keys - j, kTileKeys);
      for_each_block(keys, [&](int64_t key, auto count) HEADLOOM_INLINE_LAMBDA {
        PairBlock<T, count> z;
        exponents<count>(z, args, panel, j + key, no_bias);
        unroll<count>([&](auto k) HEADLOOM_INLINE_LAMBDA {
          store_panel(tile + (key + k) * kPanel<T>, z[k]);
        });
      });
      state.absorb(tile, keys, kPanel<T>);
    }
    state.log2_sums(log2_sum + panel * kPanel<T>, kPanel<T>);
  }
}

template <bool kWeighted, class T>
void sums_of(const PairArgs<T>& args, int64_t begin, int64_t end, const PairSums<T>& out) {
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t at = panel * kPanel<T>;
    Vec<T> bias[kPanelVectors], sum[kPanelVectors], weighted[kPanelVectors], logs[kPanelVectors];
    load_panel(args.query_bias + at, bias);
    clear_panel(sum);
    clear_panel(weighted);
    clear_panel(logs);
    for_each_block(args.keys, [&](int64_t key, auto count) HEADLOOM_INLINE_LAMBDA {
      PairBlock<T, count> z;
      exponents<count>(z, args, panel, key, bias);
      unroll<count>([&](auto k) HEADLOOM_INLINE_LAMBDA {
        unroll<kPanelVectors>([&](auto q) HEADLOOM_INLINE_LAMBDA {
          const Vec<T> e = exp2(z[k][q]);
          sum[q] = sum[q] + e;
          if constexpr (kWeighted) {
            weighted[q] = fma(e, broadcast(out.key_weight + key + k), weighted[q]);
            logs[q] = fma(e, z[k][q], logs[q]);
          }
        });
      });
    });
    store_panel(out.sum + at, sum);
    if constexpr (kWeighted) {
      store_panel(out.weighted + at, weighted);
      store_panel(out.weighted_log + at, logs);
    }
  }
}

template <class T>
void sums(const PairArgs<T>& args, int64_t begin, int64_t end, const PairSums<T>& out) {
  if (out.key_weight != nullptr) {
    sums_of<true>(args, begin, end, out);
  } else {
    sums_of<false>(args, begin, end, out);
  }
}

template <class T>
void gradient(const PairArgs<T>& args, int64_t begin, int64_t end, const PairGradient<T>& out) {
  const int64_t depth = args.depth;
  T tile[kTileKeys * kPanel<T>];
  const Vec<T> log_term = set1(out.log_term);
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t at = panel * kPanel<T>;
    Vec<T> bias[kPanelVectors], term[kPanelVectors], sum[kPanelVectors];
    load_panel(args.query_bias + at, bias);
    load_panel(out.query_term + at, term);
    clear_panel(sum);
    T* sums = out.workspace;
    for (int64_t i = 0; i < kPanel<T> * depth; ++i) {
      sums[i] = 0;
    }
    for (int64_t j = 0; j < args.keys; j += kTileKeys) {
      const int64_t keys = at_most(args.keys - j, kTileKeys);
      for_each_block(keys, [&](int64_t key, auto count) HEADLOOM_INLINE_LAMBDA {
        PairBlock<T, count> z;
        exponents<count>(z, args, panel, j + key, bias);
        unroll<count>([&](auto k) HEADLOOM_INLINE_LAMBDA {
          const Vec<T> key_term = broadcast(out.key_term + j + key + k);
          unroll<kPanelVectors>([&](auto q) HEADLOOM_INLINE_LAMBDA {
            const Vec<T> weight = exp2(z[k][q]) * fma(log_term, z[k][q], term[q] + key_term);
            sum[q] = sum[q] + weight;
            store(tile + (key + k) * kPanel<T> + q * kWidth<T>, weight);
          });
        });
      });
      add_to_queries(args.rows + j * depth, depth, keys, tile, sums);
    }
    store_panel(out.sum + at, sum);
    transpose_tile(sums, kPanel<T>, depth, kPanel<T>, out.rows + at * depth, depth);
  }
}

template <class S>
void gather(const S* from, int64_t width, const int64_t* index, int64_t count,
            accumulator_t<S>* to) {
  gather_rows(from, width, index, count, to, width);
}
template <class S>
void scatter(const accumulator_t<S>* from, int64_t width, const int64_t* index, int64_t count,
             S* to, accumulator_t<S> factor) {
  scatter_rows(from, width, width, index, count, to, factor);
}

template <class T>
constexpr PairKernels<T> kPairs = {kPanel<T>, make_panels<T>, log_sum<T>, sums<T>, gradient<T>};
template <class S>
constexpr RowKernels<S> kRows = {gather<S>, scatter<S>};

}  // namespace

extern const PairTable pair_table;
const PairTable pair_table = {kPairs<double>, kPairs<float>,   kRows<double>,
                              kRows<float>,   kRows<BFloat16>, kRows<Half>};

}  // namespace headloom::kernels::HEADLOOM_ISA

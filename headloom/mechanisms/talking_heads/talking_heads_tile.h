#pragma once

#include "headloom/base/rng.h"
#include "headloom/kernels/exp.h"
#include "headloom/kernels/philox_lanes.h"
#include "headloom/mechanisms/talking_heads/talking_heads_operand.h"

// One tile of mixed logits, in base 2, queries in the lanes: [H, keys, lanes]. The one place that
// computes logits, for both forms of the forward and of the backward pass.
namespace headloom::kernels::HEADLOOM_ISA {

inline constexpr double kLog2OfE = 1.4426950408889634, kLn2 = 0.6931471805599453;

// Fetches rows into the second-level cache: the processor does not foresee the next head.
template <class S>
HEADLOOM_INLINE void prefetch_rows(const S* p, int64_t row_stride, int64_t rows, int64_t width) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(S));
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < width; j += kLine) __builtin_prefetch(p + i * row_stride + j, 0, 2);
  }
}

// Base, and with each vector that a product stores one line of what the next product takes: all at
// once would hold up the processor, and so would more than one instruction here. Lines beyond what
// is needed do no harm.
template <class Base, class S>
struct FetchNext {
  static constexpr bool kReadsC = Base::kReadsC;
  const S* next;
  int64_t row_step;  // for each row of this product
  Base base{};

  template <class T>
  HEADLOOM_INLINE Vec<T> operator()(Vec<T> product, Vec<T> before, int64_t row,
                                    int64_t column) const {
    __builtin_prefetch(next + row * row_step + column, 0, 2);
    return base(product, before, row, column);
  }
};

template <class S>
struct LogitTiles {
  using T = accumulator_t<S>;
  using M = multiplied_t<S>;
  // The factor scale log2(e) would round bfloat16: products get it instead of queries.
  static constexpr bool kScalesProducts = kGroup<M> == 2;

  const TalkingHeadsArgs<S>& args;
  int64_t lanes, tile_keys;
  MixWeights<S> logits, weights;
  M* q_t;      // [K, D, lanes], times scale log2(e)
  M* scratch;  // [tile_keys, max(D, E)]: rows of keys or values, converted
  M* rounded;  // [tile_keys, lanes]: one head of a tile, converted
  T* edge;     // [tile_keys, lanes]: bias or dropout of one head
  AttentionSegment segment{};
  int64_t query = 0, count = 0;  // first query of the tile, lanes in use

  LogitTiles(const TalkingHeadsArgs<S>& given, const TalkingHeadsPlan& plan, bool with_backward,
             Arena<T>& arena)
      : args(given),
        lanes(plan.tile_queries),
        tile_keys(plan.tile_keys),
        logits(given.logits, given.queries, given.keys, plan, with_backward, arena),
        weights(given.weights, given.queries, given.keys, plan, with_backward, arena) {
    const int64_t width = given.key_width > given.value_width ? given.key_width : given.value_width;
    q_t = arena.template take_for<M>(given.key_heads * turned_size(given.key_width));
    const bool converts = sizeof(S) != sizeof(T);
    scratch = arena.template take_for<M>(converts ? scratch_size<M>(tile_keys, width) : 0);
    const bool rounds = sizeof(M) != sizeof(T);
    rounded = arena.template take_for<M>(rounds ? scratch_size<M>(tile_keys, lanes) : 0);
    edge = arena.take(tile_keys * lanes);
  }

  HEADLOOM_INLINE Tile<T> tile(T* data) const { return {data, tile_keys * lanes + Tile<T>::kPad}; }
  HEADLOOM_INLINE int64_t tile_size(int64_t heads) const {
    return heads * (tile_keys * lanes + Tile<T>::kPad);
  }
  // Elements of a head of turned rows.
  HEADLOOM_INLINE int64_t turned_size(int64_t width) const {
    return group_rows<M>(width) * group_stride<M>(lanes);
  }

  // Which tile of queries; begin_queries() fills the memory for it.
  void choose_queries(const AttentionSegment& of, int64_t first) {
    segment = of;
    query = first;
    count = of.queries - first < lanes ? of.queries - first : lanes;
  }
  void begin_queries() const {
    logits.begin_queries(segment, query, count);
    weights.begin_queries(segment, query, count);
    turn_queries(args.q, args.key_heads, args.key_width, q_t, args.scale * kLog2OfE);
  }

  // to[heads, width, lanes], zeros in lanes that are no query.
  void turn_queries(const HeadRows<const S>& rows, int64_t heads, int64_t width, M* to,
                    double factor) const {
    for (int64_t h = 0; h < heads; ++h) {
      if (h + 1 < heads) {
        prefetch_rows(rows.at(segment.batch, h + 1, segment.query_begin + query), rows.row_stride,
                      count, width);
      }
      right_columns(rows.at(segment.batch, h, segment.query_begin + query), rows.row_stride, count,
                    width, to + h * turned_size(width), lanes, factor);
    }
  }

  HEADLOOM_INLINE int64_t visible() const {
    return visible_keys(args.causal, segment, query, count);
  }
  HEADLOOM_INLINE int64_t rows_from(int64_t key) const {
    const int64_t left = visible() - key;
    return left < tile_keys ? left : tile_keys;
  }
  HEADLOOM_INLINE const S* rows_of(const HeadRows<const S>& rows, int64_t head, int64_t key) const {
    return rows.at(segment.batch, head, segment.key_begin + key);
  }
  // Fetches the rows of the head after `h`.
  template <class Base>
  HEADLOOM_INLINE FetchNext<Base, S> fetch_next(const HeadRows<const S>& from, int64_t h,
                                                int64_t heads, int64_t key, int64_t row_step,
                                                const Base& base) const {
    return {rows_of(from, h + 1 < heads ? h + 1 : h, key), row_step, base};
  }

  void begin_keys(int64_t key, int64_t rows) const {
    logits.begin_keys(segment, key, rows);
    weights.begin_keys(segment, key, rows);
  }

  // to[h, rows, lanes] = rows of keys or values times turned[h, width, lanes].
  template <class Epilogue>
  void product(const HeadRows<const S>& from, int64_t h, int64_t heads, int64_t width,
               const M* turned, int64_t key, int64_t rows, Tile<T> to,
               const Epilogue& epilogue) const {
    const Operand<M> a = left_rows<M>(rows_of(from, h, key), from.row_stride, rows, width, scratch);
    gemm_tile(
        GemmArgs<T, M>{rows, lanes, width, a.data, a.row_stride, a.column_stride,
                       turned + h * turned_size(width), group_stride<M>(lanes), to.head(h), lanes},
        fetch_next(from, h, heads, key, from.row_stride, epilogue));
  }

  // to[width, lanes] += the transpose of rows of keys or values times head[rows, lanes].
  void add_over_keys(const HeadRows<const S>& from, int64_t h, int64_t heads, int64_t width,
                     const T* head, int64_t key, int64_t rows, T* to) const {
    const Operand<M> a =
        left_columns<M>(rows_of(from, h, key), from.row_stride, rows, width, scratch);
    const Operand<M> b = right_rows<M>(head, lanes, rows, lanes, rounded);
    // A product of `width` rows fetches `rows` rows.
    const int64_t row_step = from.row_stride * rows / (width > 0 ? width : 1);
    gemm_tile(GemmArgs<T, M>{width, lanes, rows, a.data, a.row_stride, a.column_stride, b.data,
                             b.row_stride, to, lanes},
              fetch_next(from, h, heads, key, row_step, Accumulate{}));
  }

  // The mixed logits of keys [key, key + rows); `dots` gets the products before mixing, unless the
  // heads are not mixed.
  void compute(int64_t key, int64_t rows, Tile<T> dots, Tile<T> mixed) const {
    const Tile<T> to = logits.identity ? mixed : dots;
    for (int64_t h = 0; h < args.key_heads; ++h) {
      if constexpr (kScalesProducts) {
        product(args.k, h, args.key_heads, args.key_width, q_t, key, rows, to,
                Times<T>{set1(static_cast<T>(args.scale * kLog2OfE))});
      } else {
        product(args.k, h, args.key_heads, args.key_width, q_t, key, rows, to, Assign{});
      }
    }
    if (!logits.identity) logits.mix(dots, mixed, rows, nullptr);
    if (args.bias.data != nullptr) add_bias(key, rows, mixed);
    if (args.relative_bias != nullptr) add_relative_bias(key, rows, mixed);
    hide(key, rows, mixed);
  }

  // Multiplies [heads, rows, lanes] of head `h` by its dropout mask; `heads` of the mask.
  void drop(int64_t h, int64_t heads, int64_t key, int64_t rows, T* values) const {
    if (args.dropout == DropoutSite::kPerKey) {
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t element = (segment.batch * heads + h) * segment.keys + key + r;
        const bool keeps =
            dropout_keeps(segment.seed, static_cast<uint64_t>(element), args.drop_threshold);
        const Vec<T> factor = set1(keeps ? static_cast<T>(args.kept) : T(0));
        for (int64_t lane = 0; lane < lanes; lane += kWidth<T>) {
          store(values + r * lanes + lane, load(values + r * lanes + lane) * factor);
        }
      }
      return;
    }
    fill_mask(h, heads, key, rows);
    drop_again(rows, values);
  }
  // With the mask of the last drop() of a head.
  void drop_again(int64_t rows, T* values) const {
    for (int64_t at = 0; at < rows * lanes; at += kWidth<T>) {
      store(values + at, load(values + at) * load(edge + at));
    }
  }

 private:
  void add_edge(int64_t rows, T* to) const {
    const Vec<T> base_two = set1(static_cast<T>(kLog2OfE));
    for (int64_t at = 0; at < rows * lanes; at += kWidth<T>) {
      store(to + at, fma(load(edge + at), base_two, load(to + at)));
    }
  }

  void add_bias(int64_t key, int64_t rows, Tile<T> mixed) const {
    const HeadBias<const S>& bias = args.bias;
    if (count < lanes) fill(edge, rows * lanes, T(0));
    for (int64_t h = 0; h < args.heads; ++h) {
      const S* from = bias.data + segment.batch * bias.batch_stride + h * bias.head_stride +
                      query * bias.query_stride + key * bias.key_stride;
      if (h > 0 && bias.head_stride == 0) {
        // The edge holds it already.
      } else if (bias.key_stride == 1) {
        transpose_tile(from, bias.query_stride, count, rows, edge, lanes);
      } else {
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t i = 0; i < count; ++i) {
            edge[r * lanes + i] = static_cast<T>(from[i * bias.query_stride + r * bias.key_stride]);
          }
        }
      }
      add_edge(rows, mixed.head(h));
    }
  }

  void add_relative_bias(int64_t key, int64_t rows, Tile<T> mixed) const {
    const Vec<T> base_two = set1(static_cast<T>(kLog2OfE));
    for (int64_t h = 0; h < args.heads; ++h) {
      const S* from =
          args.relative_bias + h * args.relative_head_stride + query - key + args.keys - 1;
      for (int64_t r = 0; r < rows; ++r) {
        T* to = mixed.head(h) + r * lanes;
        for_each_vector<T>(count, [&](int64_t i, auto some) HEADLOOM_INLINE_LAMBDA {
          store_at(to + i, some, fma(load_at(from - r + i, some), base_two, load_at(to + i, some)));
        });
      }
    }
  }

  // -inf where a key is padding or comes after the query.
  void hide(int64_t key, int64_t rows, Tile<T> mixed) const {
    const int64_t first_hidden = query + segment.keys - segment.queries + 1;
    if (args.key_padding == nullptr && (!args.causal || key + rows <= first_hidden)) return;
    const bool* padding =
        args.key_padding != nullptr
            ? args.key_padding + segment.batch * args.keys + segment.key_begin + key
            : nullptr;
    const Vec<T> never = set1(-ExpConstants<T>::kInfinity);
    for (int64_t r = 0; r < rows; ++r) {
      int64_t hidden = args.causal ? key + r + 1 - first_hidden : 0;
      if (padding != nullptr && padding[r]) hidden = lanes;
      if (hidden <= 0) continue;
      hidden = hidden < lanes ? hidden : lanes;
      for (int64_t h = 0; h < args.heads; ++h) {
        T* to = mixed.head(h) + r * lanes;
        for_each_vector<T>(hidden, [&](int64_t i, auto some)
                                       HEADLOOM_INLINE_LAMBDA { store_at(to + i, some, never); });
      }
    }
  }

  // edge[rows, lanes]: the dropout mask of head `h`, [B, heads, Tq, Tk] in row-major order.
  void fill_mask(int64_t h, int64_t heads, int64_t key, int64_t rows) const {
    const int64_t first =
        ((segment.batch * heads + h) * segment.queries + query) * segment.keys + key;
    const auto threshold = static_cast<uint32_t>(args.drop_threshold);
    dropout_tile({segment.seed, threshold, first, segment.keys}, static_cast<T>(args.kept), rows,
                 lanes, edge, lanes);
  }
};

}  // namespace headloom::kernels::HEADLOOM_ISA

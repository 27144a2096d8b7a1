// The backward pass of one tile of queries, and the sums over the workers.
//
// First sweep over the keys, with U the mixed weights and G the gradient of the output:
//   dV += U^T G    dU = G V^T    dPw += W^T dU    dW = dU Pw^T    delta += rowsum(W dW)
// second sweep:
//   dL = W (dW - delta)    dPl += J^T dL    dJ = dL Pl^T    dQ += dJ K    dK += dJ^T Q
// The strip keeps J, W and dW of all keys between the sweeps; without it they are computed again.
#include "headloom/mechanisms/talking_heads/talking_heads_bias_sums.h"

namespace headloom::kernels::HEADLOOM_ISA {

namespace {

template <class S>
struct Backward {
  using T = accumulator_t<S>;
  using M = multiplied_t<S>;

  const TalkingHeadsArgs<S>& args;
  LogitTiles<S> tiles;
  MixSums<S> logit_sums, weight_sums;
  bool strip, drops_before;
  T *dots, *softmax, *grads;  // J [K], W [H], dW and then dL [H]; a tile for each tile of keys
  T *mixtures, *dropped;      // [max(K, V)]; [H], dropout before the mix only
  M* g_t;                     // [V, E, lanes]
  T* grad_q_t;                // [K, D, lanes]
  M *q_rows, *g_rows;         // [K, lanes, D], [V, lanes, E]: half types, converted
  T *shift, *delta;           // [H, lanes]
  const TalkingHeadsGradients<S>* gradients = nullptr;
  const TalkingHeadsSums<T>* sums = nullptr;
  bool fresh = false;

  Backward(const TalkingHeadsArgs<S>& given, const TalkingHeadsPlan& plan, Arena<T>& arena)
      : args(given),
        tiles(given, plan, true, arena),
        logit_sums(tiles.logits, arena),
        weight_sums(tiles.weights, arena),
        strip(plan.strip_tiles > 0),
        drops_before(given.dropout == DropoutSite::kBeforeMix) {
    const int64_t lanes = plan.tile_queries;
    const int64_t held = strip ? plan.strip_tiles : 1;
    dots = arena.take(tiles.logits.identity ? 0 : held * tiles.tile_size(given.key_heads));
    softmax = arena.take(held * tiles.tile_size(given.heads));
    grads = arena.take(held * tiles.tile_size(given.heads));
    mixtures = arena.take(
        tiles.tile_size(given.key_heads > given.value_heads ? given.key_heads : given.value_heads));
    dropped = arena.take(drops_before ? tiles.tile_size(given.heads) : 0);
    g_t = arena.template take_for<M>(given.value_heads * tiles.turned_size(given.value_width));
    grad_q_t = arena.take(given.key_heads * given.key_width * lanes);
    const bool converts = sizeof(S) != sizeof(T);
    q_rows = arena.template take_for<M>(
        converts ? given.key_heads * scratch_size<M>(lanes, given.key_width) : 0);
    g_rows = arena.template take_for<M>(
        converts ? given.value_heads * scratch_size<M>(lanes, given.value_width) : 0);
    shift = arena.take(given.heads * lanes);
    delta = arena.take(given.heads * lanes);
  }

  Tile<T> kept(T* from, int64_t heads, int64_t index) const {
    return tiles.tile(from + (strip ? index * tiles.tile_size(heads) : 0));
  }

  void run(const AttentionSegment& segment, int64_t query) {
    begin(segment, query);
    const int64_t visible = tiles.visible();
    for (int64_t key = 0, index = 0; key < visible; key += tiles.tile_keys, ++index) {
      tiles.begin_keys(key, tiles.rows_from(key));
      through_values(key, index, true);
    }
    for (int64_t key = 0, index = 0; key < visible; key += tiles.tile_keys, ++index) {
      tiles.begin_keys(key, tiles.rows_from(key));
      if (!strip) through_values(key, index, false);
      through_keys(key, index);
    }
    finish();
  }

  void begin(const AttentionSegment& segment, int64_t query) {
    tiles.begin_queries(segment, query);
    tiles.turn_queries(gradients->grad_out, args.value_heads, args.value_width, g_t, 1.0);
    fill(grad_q_t, args.key_heads * args.key_width * tiles.lanes, T(0));
    fill(delta, args.heads * tiles.lanes, T(0));
    fill(shift, args.heads * tiles.lanes, ExpConstants<T>::kInfinity);
    logit_sums.begin_queries();
    weight_sums.begin_queries();
    const int64_t first = segment.query_begin + query;
    for (int64_t h = 0; h < args.heads; ++h) {
      const T* from =
          gradients->log2_sums + (segment.batch * args.heads + h) * args.queries + first;
      T* to = shift + h * tiles.lanes;
      for (int64_t i = 0; i < tiles.count; ++i) {
        // Where nothing is seen, 2^(-inf - inf) = 0.
        if (from[i] != -ExpConstants<T>::kInfinity) to[i] = from[i];
      }
    }
    if constexpr (sizeof(S) != sizeof(T)) {
      convert(args.q, args.key_heads, args.key_width, q_rows);
      convert(gradients->grad_out, args.value_heads, args.value_width, g_rows);
    }
  }

  void convert(const HeadRows<const S>& from, int64_t heads, int64_t width, M* to) const {
    for (int64_t h = 0; h < heads; ++h) {
      right_rows(from.at(tiles.segment.batch, h, tiles.segment.query_begin + tiles.query),
                 from.row_stride, tiles.count, width, to + h * scratch_size<M>(tiles.lanes, width));
    }
  }

  // The tile's queries or output gradients, as they lie in memory or converted.
  Operand<M> query_rows(const HeadRows<const S>& from, int64_t h, int64_t width,
                        const M* converted) const {
    if constexpr (sizeof(S) == sizeof(T)) {
      return {from.at(tiles.segment.batch, h, tiles.segment.query_begin + tiles.query),
              from.row_stride, 1};
    } else {
      return {converted + h * scratch_size<M>(tiles.lanes, width), group_stride<M>(width), 1};
    }
  }

  // sum[rows, width] = or += tile[rows, lanes] times rows of queries.
  void add_to_keys(const T* tile, const Operand<M>& queries, int64_t rows, int64_t width,
                   T* sum) const {
    const T* const next = sum + tiles.segment.keys * width;  // the next head's
    const Operand<M> a = left_tile(tile, rows, tiles.lanes, tiles.rounded);
    const GemmArgs<T, M> product{rows,         width,
                                 tiles.count,  a.data,
                                 a.row_stride, a.column_stride,
                                 queries.data, queries.row_stride,
                                 sum,          width};
    if (fresh) {
      gemm_tile(product, FetchNext<Assign, T>{next, width});
    } else {
      gemm_tile(product, FetchNext<Accumulate, T>{next, width});
    }
  }

  // W and dW of a tile of keys; the first time also what the values and the second mix get, and
  // delta.
  void through_values(int64_t key, int64_t index, bool first) const {
    const int64_t rows = tiles.rows_from(key);
    const Tile<T> w = kept(softmax, args.heads, index), grad_w = kept(grads, args.heads, index);
    const Tile<T> mixed = tiles.tile(mixtures);
    tiles.compute(key, rows, kept(dots, args.key_heads, index), w);
    for (int64_t h = 0; h < args.heads; ++h) normalise(w.head(h), shift + h * tiles.lanes, rows);
    const Tile<T> applied = drops_before ? dropped_weights(w, key, rows) : w;
    if (first) tiles.weights.mix(applied, mixed, rows, nullptr);
    for (int64_t h = 0; h < args.value_heads; ++h) {
      values_of_head(h, key, rows, first, mixed);
    }
    if (first) {
      T* by_key = sums->weights_by_key;
      weight_sums.add(applied, mixed, rows,
                      by_key != nullptr ? by_key + key * args.weights.size() : nullptr, fresh);
    }
    tiles.weights.mix_back(mixed, grad_w, rows);
    for (int64_t h = 0; h < args.heads; ++h) {
      if (drops_before) tiles.drop(h, args.heads, key, rows, grad_w.head(h));
      if (first) add_delta(w.head(h), grad_w.head(h), delta + h * tiles.lanes, rows);
    }
  }

  // Uses up U of one head: dV, and dU in its place.
  void values_of_head(int64_t h, int64_t key, int64_t rows, bool first, Tile<T> mixed) const {
    const bool drops =
        args.dropout == DropoutSite::kAfterMix || args.dropout == DropoutSite::kPerKey;
    if (first) {
      if (drops) tiles.drop(h, args.value_heads, key, rows, mixed.head(h));
      add_to_keys(mixed.head(h), query_rows(gradients->grad_out, h, args.value_width, g_rows), rows,
                  args.value_width,
                  sums->values + (h * tiles.segment.keys + key) * args.value_width);
    }
    tiles.product(args.v, h, args.value_heads, args.value_width, g_t, key, rows, mixed, Assign{});
    if (!drops) return;
    if (first && args.dropout == DropoutSite::kAfterMix) {
      tiles.drop_again(rows, mixed.head(h));
    } else {
      tiles.drop(h, args.value_heads, key, rows, mixed.head(h));
    }
  }

  Tile<T> dropped_weights(Tile<T> w, int64_t key, int64_t rows) const {
    const Tile<T> to = tiles.tile(dropped);
    for (int64_t h = 0; h < args.heads; ++h) {
      for (int64_t at = 0; at < rows * tiles.lanes; at += kWidth<T>) {
        store(to.head(h) + at, load(w.head(h) + at));
      }
      tiles.drop(h, args.heads, key, rows, to.head(h));
    }
    return to;
  }

  // Everything on the side of the logits.
  void through_keys(int64_t key, int64_t index) const {
    const int64_t rows = tiles.rows_from(key);
    const Tile<T> w = kept(softmax, args.heads, index), grad = kept(grads, args.heads, index);
    const Tile<T> grad_dots = tiles.tile(mixtures);
    for (int64_t h = 0; h < args.heads; ++h) {
      to_logit_gradient(w.head(h), grad.head(h), delta + h * tiles.lanes, rows);
      if (sums->bias.data != nullptr) {
        add_to_bias(tiles, sums->bias, h, key, rows, grad.head(h), tiles.edge);
      }
      if (sums->relative_bias != nullptr) {
        add_to_relative_bias(tiles, sums->relative_bias, h, key, rows, grad.head(h));
      }
    }
    T* by_key = sums->logits_by_key;
    logit_sums.add(kept(dots, args.key_heads, index), grad, rows,
                   by_key != nullptr ? by_key + key * args.logits.size() : nullptr, fresh);
    if (!tiles.logits.identity) tiles.logits.mix_back(grad, grad_dots, rows);
    const Tile<T> grad_j = tiles.logits.identity ? grad : grad_dots;
    const int64_t width = args.key_width;
    for (int64_t h = 0; h < args.key_heads; ++h) {
      tiles.add_over_keys(args.k, h, args.key_heads, width, grad_j.head(h), key, rows,
                          grad_q_t + h * width * tiles.lanes);
      add_to_keys(grad_j.head(h), query_rows(args.q, h, width, q_rows), rows, width,
                  sums->keys + (h * tiles.segment.keys + key) * width);
    }
  }

  void normalise(T* logits, const T* shifts, int64_t rows) const {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t lane = 0; lane < tiles.lanes; lane += kWidth<T>) {
        T* at = logits + r * tiles.lanes + lane;
        store(at, exp2(load(at) - load(shifts + lane)));
      }
    }
  }

  void add_delta(const T* w, const T* grad_w, T* to, int64_t rows) const {
    for (int64_t lane = 0; lane < tiles.lanes; lane += kWidth<T>) {
      Vec<T> sum = load(to + lane);
      for (int64_t r = 0; r < rows; ++r) {
        sum = fma(load(w + r * tiles.lanes + lane), load(grad_w + r * tiles.lanes + lane), sum);
      }
      store(to + lane, sum);
    }
  }

  void to_logit_gradient(const T* w, T* grad, const T* deltas, int64_t rows) const {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t lane = 0; lane < tiles.lanes; lane += kWidth<T>) {
        const int64_t at = r * tiles.lanes + lane;
        store(grad + at, load(w + at) * (load(grad + at) - load(deltas + lane)));
      }
    }
  }

  // `dots` hold scale log2(e) J, so the gradient of the first mix is theirs times ln 2.
  void finish() const {
    const AttentionSegment& segment = tiles.segment;
    const int64_t first = segment.query_begin + tiles.query;
    for (int64_t h = 0; h < args.key_heads; ++h) {
      transpose_tile(grad_q_t + h * args.key_width * tiles.lanes, tiles.lanes, args.key_width,
                     tiles.count, gradients->q.at(segment.batch, h, first), gradients->q.row_stride,
                     static_cast<T>(args.scale));
    }
    const int64_t row = segment.batch * args.queries + first;
    S* by_query = gradients->logits_by_query;
    logit_sums.finish(sums->logits,
                      by_query != nullptr ? by_query + row * args.logits.size() : nullptr,
                      tiles.count, static_cast<T>(kLn2));
    by_query = gradients->weights_by_query;
    weight_sums.finish(sums->weights,
                       by_query != nullptr ? by_query + row * args.weights.size() : nullptr,
                       tiles.count, T(1));
  }
};

template <class S>
int64_t workspace(const TalkingHeadsArgs<S>& args, const TalkingHeadsPlan& plan) {
  Arena<accumulator_t<S>> arena{nullptr};
  const Backward<S> counted(args, plan, arena);
  return arena.used;
}

template <class S>
void tile(const TalkingHeadsArgs<S>& args, const TalkingHeadsPlan& plan,
          const AttentionSegment& segment, int64_t query, const TalkingHeadsGradients<S>& gradients,
          const TalkingHeadsSums<accumulator_t<S>>& sums, bool fresh, accumulator_t<S>* memory) {
  Arena<accumulator_t<S>> arena{memory};
  Backward<S> backward(args, plan, arena);
  backward.gradients = &gradients;
  backward.sums = &sums;
  backward.fresh = fresh;
  backward.run(segment, query);
}

// to[width] = factor times the sum of the workers' rows that lie at `offset` of `member`.
template <class S, class T = accumulator_t<S>>
void add_rows(const TalkingHeadsSums<T>* sums, int64_t workers, T* TalkingHeadsSums<T>::*member,
              int64_t offset, int64_t width, double factor, S* to) {
  const Vec<T> factors = set1(static_cast<T>(factor));
  for_each_vector<T>(width, [&](int64_t i, auto some) HEADLOOM_INLINE_LAMBDA {
    Vec<T> sum = zero<T>();
    for (int64_t w = 0; w < workers; ++w) {
      sum = sum + load_at(sums[w].*member + offset + i, some);
    }
    store_at(to + i, some, sum * factors);
  });
}

template <class S>
void reduce(const TalkingHeadsArgs<S>& args, const AttentionSegment& segment, int64_t begin,
            int64_t end, const TalkingHeadsSums<accumulator_t<S>>* sums, const int64_t* extents,
            int64_t workers, const TalkingHeadsKeyGradients<S>& to) {
  using Sums = TalkingHeadsSums<accumulator_t<S>>;
  for (int64_t key = begin; key < end; ++key) {
    int64_t seen = workers;
    while (seen > 0 && extents[seen - 1] <= key) --seen;
    const int64_t row = segment.key_begin + key;
    for (int64_t h = 0; h < args.key_heads; ++h) {
      add_rows(sums, seen, &Sums::keys, (h * segment.keys + key) * args.key_width, args.key_width,
               args.scale, to.k.at(segment.batch, h, row));
    }
    for (int64_t h = 0; h < args.value_heads; ++h) {
      add_rows(sums, seen, &Sums::values, (h * segment.keys + key) * args.value_width,
               args.value_width, 1.0, to.v.at(segment.batch, h, row));
    }
    const int64_t in_batch = segment.batch * args.keys + row;
    if (to.logits_by_key != nullptr) {
      add_rows(sums, seen, &Sums::logits_by_key, key * args.logits.size(), args.logits.size(), kLn2,
               to.logits_by_key + in_batch * args.logits.size());
    }
    if (to.weights_by_key != nullptr) {
      add_rows(sums, seen, &Sums::weights_by_key, key * args.weights.size(), args.weights.size(),
               1.0, to.weights_by_key + in_batch * args.weights.size());
    }
  }
}

}  // namespace

extern const TalkingHeadsBackwardTable talking_heads_backward_table;
const TalkingHeadsBackwardTable talking_heads_backward_table = {
    {workspace<double>, tile<double>, reduce<double>},
    {workspace<float>, tile<float>, reduce<float>},
    {workspace<BFloat16>, tile<BFloat16>, reduce<BFloat16>},
    {workspace<Half>, tile<Half>, reduce<Half>}};

}  // namespace headloom::kernels::HEADLOOM_ISA

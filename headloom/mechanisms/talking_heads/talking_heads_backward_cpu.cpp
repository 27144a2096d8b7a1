// The backward pass of one tile of queries, and the sums over the workers.
//
// First sweep over the keys, with U the mixed weights and G the gradient of the output:
//   dV += U^T G    dU = G V^T    dPw += W^T dU    dW = dU Pw^T    delta += rowsum(W dW)
// second sweep:
//   dL = W (dW - delta)    dPl += J^T dL    dJ = dL Pl^T    dQ += dJ K    dK += dJ^T Q
// The strip keeps J, W and dW of all keys between the sweeps; without it they are computed again.
// Workers that share the keys of the tile add up their delta after the first sweep and their dQ
// after the second.
#include "headloom/mechanisms/talking_heads/talking_heads_bias_sums.h"

namespace headloom::kernels::HEADLOOM_ISA {

namespace {

template <class S>
struct Backward {
  using T = accumulator_t<S>;
  using M = multiplied_t<S>;

  const TalkingHeadsArgs<S>& args;
  const TalkingHeadsPlan& plan;
  LogitTiles<S> tiles;
  MixSums<S> logit_sums, weight_sums;
  bool strip, drops_before;
  T *dots, *softmax, *grads;     // J [K], W [H], dW and then dL [H]; a tile for each tile of keys
  T *mixtures, *dropped;         // [max(K, V)]; [H], dropout before the mix only
  M* g_t;                        // [V, E, lanes]
  T* grad_q_t;                   // [K, D, lanes]
  M *q_rows, *g_rows;            // [K, lanes, D], [V, lanes, E]: half types, converted
  T *shift, *own_delta, *delta;  // [H, lanes]; delta is the sum over the members
  const TalkingHeadsTask<S>* task = nullptr;

  Backward(const TalkingHeadsArgs<S>& given, const TalkingHeadsPlan& how, Arena<T>& arena)
      : args(given),
        plan(how),
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
    own_delta = arena.take(given.heads * lanes);
    delta = arena.take(given.heads * lanes);
  }

  Tile<T> kept(T* from, int64_t heads, int64_t index) const {
    return tiles.tile(from + (strip ? index * tiles.tile_size(heads) : 0));
  }

  // body(key, index) for the tiles of keys of this member, which `index` counts.
  template <class Body>
  void for_keys(const Body& body) const {
    const int64_t visible = tiles.visible(), step = plan.members * tiles.tile_keys;
    int64_t key = task->member * tiles.tile_keys;
    for (int64_t index = 0; key < visible; key += step, ++index) {
      tiles.begin_keys(key, tiles.rows_from(key));
      body(key, index);
    }
  }

  // Members read each other's sums: delta and those of the weights in keys(), dQ and those of the
  // logits in finish(), beside which values() of the next tile may run. No stage clears what others
  // may still be reading.
  void values() {
    begin();
    fill(own_delta, args.heads * tiles.lanes, T(0));
    weight_sums.begin_queries();
    for_keys([&](int64_t key, int64_t index) { through_values(key, index, true); });
  }

  void keys() {
    finish_mix(weight_sums, task->sums.weights, task->gradients.weights_by_query, 1.0);
    add_members(own_delta, args.heads * tiles.lanes, delta);
    fill(grad_q_t, args.key_heads * args.key_width * tiles.lanes, T(0));
    logit_sums.begin_queries();
    for_keys([&](int64_t key, int64_t index) {
      if (!strip) through_values(key, index, false);
      through_keys(key, index);
    });
  }

  // to[count] = the sum of what the members have at `own`, in their order.
  void add_members(const T* own, int64_t count, T* to) const {
    const T* first = own - task->member * task->workspace_stride;
    for_each_vector<T>(count, [&](int64_t i, auto some) HEADLOOM_INLINE_LAMBDA {
      Vec<T> sum = load_at(first + i, some);
      for (int64_t m = 1; m < plan.members; ++m) {
        sum = sum + load_at(first + m * task->workspace_stride + i, some);
      }
      store_at(to + i, some, sum);
    });
  }

  void begin() {
    const AttentionSegment& segment = tiles.segment;
    const TalkingHeadsGradients<S>& gradients = task->gradients;
    tiles.begin_queries();
    tiles.turn_queries(gradients.grad_out, args.value_heads, args.value_width, g_t, 1.0);
    fill(shift, args.heads * tiles.lanes, ExpConstants<T>::kInfinity);
    const int64_t first = segment.query_begin + tiles.query;
    for (int64_t h = 0; h < args.heads; ++h) {
      const T* from = gradients.log2_sums + (segment.batch * args.heads + h) * args.queries + first;
      T* to = shift + h * tiles.lanes;
      for (int64_t i = 0; i < tiles.count; ++i) {
        // Where nothing is seen, 2^(-inf - inf) = 0.
        if (from[i] != -ExpConstants<T>::kInfinity) to[i] = from[i];
      }
    }
    if constexpr (sizeof(S) != sizeof(T)) {
      convert(args.q, args.key_heads, args.key_width, q_rows);
      convert(gradients.grad_out, args.value_heads, args.value_width, g_rows);
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
    if (task->fresh) {
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
      T* by_key = task->sums.weights_by_key;
      weight_sums.add(applied, mixed, rows,
                      by_key != nullptr ? by_key + key * args.weights.size() : nullptr,
                      task->fresh);
    }
    tiles.weights.mix_back(mixed, grad_w, rows);
    for (int64_t h = 0; h < args.heads; ++h) {
      if (drops_before) tiles.drop(h, args.heads, key, rows, grad_w.head(h));
      if (first) add_delta(w.head(h), grad_w.head(h), own_delta + h * tiles.lanes, rows);
    }
  }

  // Uses up U of one head: dV, and dU in its place.
  void values_of_head(int64_t h, int64_t key, int64_t rows, bool first, Tile<T> mixed) const {
    const bool drops =
        args.dropout == DropoutSite::kAfterMix || args.dropout == DropoutSite::kPerKey;
    if (first) {
      if (drops) tiles.drop(h, args.value_heads, key, rows, mixed.head(h));
      add_to_keys(mixed.head(h), query_rows(task->gradients.grad_out, h, args.value_width, g_rows),
                  rows, args.value_width,
                  task->sums.values + (h * tiles.segment.keys + key) * args.value_width);
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
      if (task->sums.bias.data != nullptr) {
        add_to_bias(tiles, task->sums.bias, h, key, rows, grad.head(h), tiles.edge);
      }
      if (task->sums.relative_bias != nullptr) {
        add_to_relative_bias(tiles, task->sums.relative_bias, h, key, rows, grad.head(h));
      }
    }
    T* by_key = task->sums.logits_by_key;
    logit_sums.add(kept(dots, args.key_heads, index), grad, rows,
                   by_key != nullptr ? by_key + key * args.logits.size() : nullptr, task->fresh);
    if (!tiles.logits.identity) tiles.logits.mix_back(grad, grad_dots, rows);
    const Tile<T> grad_j = tiles.logits.identity ? grad : grad_dots;
    const int64_t width = args.key_width;
    for (int64_t h = 0; h < args.key_heads; ++h) {
      tiles.add_over_keys(args.k, h, args.key_heads, width, grad_j.head(h), key, rows,
                          grad_q_t + h * width * tiles.lanes);
      add_to_keys(grad_j.head(h), query_rows(args.q, h, width, q_rows), rows, width,
                  task->sums.keys + (h * tiles.segment.keys + key) * width);
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
  void finish() {
    const HeadRows<S>& to = task->gradients.q;
    const int64_t first = tiles.segment.query_begin + tiles.query;
    for (int64_t h = task->member; h < args.key_heads; h += plan.members) {
      T* const head = grad_q_t + h * args.key_width * tiles.lanes;
      if (plan.members > 1) add_members(head, args.key_width * tiles.lanes, head);
      transpose_tile(head, tiles.lanes, args.key_width, tiles.count,
                     to.at(tiles.segment.batch, h, first), to.row_stride,
                     static_cast<T>(args.scale));
    }
    finish_mix(logit_sums, task->sums.logits, task->gradients.logits_by_query, kLn2);
  }

  // Every member adds to its total; the first writes the rows of the queries.
  void finish_mix(const MixSums<S>& mix, double* total, S* by_query, double factor) const {
    mix.add_to(total);
    if (by_query == nullptr || task->member != 0) return;
    if (plan.members > 1) add_members(mix.sums, mix.count(), mix.sums);
    const int64_t row =
        tiles.segment.batch * args.queries + tiles.segment.query_begin + tiles.query;
    mix.write_rows(by_query + row * mix.weights.mixing.size(), tiles.count, static_cast<T>(factor));
  }
};

template <class S>
int64_t workspace(const TalkingHeadsArgs<S>& args, const TalkingHeadsPlan& plan) {
  Arena<accumulator_t<S>> arena{nullptr};
  const Backward<S> counted(args, plan, arena);
  return arena.used;
}

template <class S, void (Backward<S>::*kStage)()>
void stage(const TalkingHeadsTask<S>& task) {
  Arena<accumulator_t<S>> arena{task.workspace};
  Backward<S> backward(task.args, task.plan, arena);
  backward.task = &task;
  backward.tiles.choose_queries(task.segment, task.query);
  (backward.*kStage)();
}

// to[width] = factor times the sum of the sets' rows that lie at `offset` of `member`.
template <class S, class T = accumulator_t<S>>
void add_rows(const TalkingHeadsSums<T>* sums, int64_t sets, T* TalkingHeadsSums<T>::*member,
              int64_t offset, int64_t width, double factor, S* to) {
  const Vec<T> factors = set1(static_cast<T>(factor));
  for_each_vector<T>(width, [&](int64_t i, auto some) HEADLOOM_INLINE_LAMBDA {
    Vec<T> sum = zero<T>();
    for (int64_t set = 0; set < sets; ++set) {
      sum = sum + load_at(sums[set].*member + offset + i, some);
    }
    store_at(to + i, some, sum * factors);
  });
}

template <class S>
void reduce(const TalkingHeadsArgs<S>& args, const AttentionSegment& segment, int64_t begin,
            int64_t end, const TalkingHeadsSums<accumulator_t<S>>* sums, const int64_t* extents,
            int64_t sets, const TalkingHeadsKeyGradients<S>& to) {
  using Sums = TalkingHeadsSums<accumulator_t<S>>;
  for (int64_t key = begin; key < end; ++key) {
    int64_t seen = sets;
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

template <class S>
constexpr TalkingHeadsBackward<S> kernels_of = {workspace<S>, stage<S, &Backward<S>::values>,
                                                stage<S, &Backward<S>::keys>,
                                                stage<S, &Backward<S>::finish>, reduce<S>};

}  // namespace

extern const TalkingHeadsBackwardTable talking_heads_backward_table;
const TalkingHeadsBackwardTable talking_heads_backward_table = {
    kernels_of<double>, kernels_of<float>, kernels_of<BFloat16>, kernels_of<Half>};

}  // namespace headloom::kernels::HEADLOOM_ISA

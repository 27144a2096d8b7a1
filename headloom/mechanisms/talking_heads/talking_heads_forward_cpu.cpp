// The forward pass of one tile of queries.
#include "headloom/kernels/online_softmax.h"
#include "headloom/mechanisms/talking_heads/talking_heads_tile.h"

namespace headloom::kernels::HEADLOOM_ISA {

namespace {

template <class S>
struct Forward {
  using T = accumulator_t<S>;
  using Softmax = OnlineSoftmax<T, 2>;
  static constexpr int64_t kPanel = Softmax::kQueries;

  const TalkingHeadsArgs<S>& args;
  LogitTiles<S> tiles;
  bool strip;
  T *mixtures, *kept, *maxima;  // maxima: [tiles of keys, H, lanes], strip form only
  T *out_t, *factors;           // [V, E, lanes], [H, lanes]
  Softmax* softmax;             // [H, lanes / kPanel]

  Forward(const TalkingHeadsArgs<S>& given, const TalkingHeadsPlan& plan, Arena<T>& arena)
      : args(given), tiles(given, plan, false, arena), strip(plan.strip_tiles > 0) {
    const int64_t lanes = plan.tile_queries;
    const int64_t held = strip ? plan.strip_tiles : 1;
    mixtures = arena.take(
        tiles.tile_size(given.key_heads > given.value_heads ? given.key_heads : given.value_heads));
    kept = arena.take(held * tiles.tile_size(given.heads));
    maxima = arena.take(held * given.heads * lanes);
    out_t = arena.take(given.value_heads * given.value_width * lanes);
    factors = arena.take(given.heads * lanes);
    softmax = reinterpret_cast<Softmax*>(arena.take(
        given.heads * (lanes / kPanel) * static_cast<int64_t>(sizeof(Softmax) / sizeof(T))));
  }

  Tile<T> kept_tile(int64_t index) const {
    return tiles.tile(kept + (strip ? index * tiles.tile_size(args.heads) : 0));
  }
  T* maxima_of(int64_t index, int64_t h) const {
    return maxima + (index * args.heads + h) * tiles.lanes;
  }
  Softmax& softmax_of(int64_t h, int64_t lane) const {
    return softmax[(h * tiles.lanes + lane) / kPanel];
  }

  void run(const AttentionSegment& segment, int64_t query, const TalkingHeadsOutput<S>& output) {
    tiles.choose_queries(segment, query);
    tiles.begin_queries();
    for (int64_t i = 0; i < args.heads * (tiles.lanes / kPanel); ++i) softmax[i].reset();
    fill(out_t, args.value_heads * args.value_width * tiles.lanes, T(0));
    const int64_t visible = tiles.visible();
    for (int64_t key = 0, index = 0; key < visible; key += tiles.tile_keys, ++index) {
      gather(key, index);
    }
    if (!strip) shifts();
    for (int64_t key = 0, index = 0; key < visible; key += tiles.tile_keys, ++index) {
      weigh(key, index);
    }
    write(output);
  }

  // Logits of a tile into the softmax; the strip keeps 2^(logit - maximum so far).
  void gather(int64_t key, int64_t index) const {
    const int64_t rows = tiles.rows_from(key);
    const Tile<T> tile = kept_tile(index);
    tiles.begin_keys(key, rows);
    tiles.compute(key, rows, tiles.tile(mixtures), tile);
    for (int64_t h = 0; h < args.heads; ++h) {
      for (int64_t lane = 0; lane < tiles.lanes; lane += kPanel) {
        Softmax& state = softmax_of(h, lane);
        state.absorb(tile.head(h) + lane, rows, tiles.lanes);
        if (!strip) continue;
        unroll<2>([&](auto j) HEADLOOM_INLINE_LAMBDA {
          store(maxima_of(index, h) + lane + j * kWidth<T>, finite_shift(state.maximum[j]));
        });
      }
    }
  }

  // factors: the log2 of each query's sum, so that a weight is 2^(logit - factor).
  void shifts() const {
    for (int64_t h = 0; h < args.heads; ++h) {
      for (int64_t lane = 0; lane < tiles.lanes; lane += kPanel) {
        T* to = factors + h * tiles.lanes + lane;
        softmax_of(h, lane).log2_sums(to, kPanel);
        for (int64_t i = 0; i < kPanel; ++i) {
          // Where nothing is seen, 2^(-inf - inf) = 0.
          if (to[i] == -ExpConstants<T>::kInfinity) to[i] = ExpConstants<T>::kInfinity;
        }
      }
    }
  }

  // What the strip's numbers of one tile are to be multiplied by to become weights.
  void scales(int64_t index) const {
    for (int64_t h = 0; h < args.heads; ++h) {
      for (int64_t lane = 0; lane < tiles.lanes; lane += kPanel) {
        const Softmax& state = softmax_of(h, lane);
        unroll<2>([&](auto j) HEADLOOM_INLINE_LAMBDA {
          const int64_t at = lane + j * kWidth<T>;
          const Vec<T> moved =
              exp2(load(maxima_of(index, h) + at) - finite_shift(state.maximum[j]));
          store(factors + h * tiles.lanes + at, moved * inverse_or_zero(state.sum[j]));
        });
      }
    }
  }

  void again(int64_t key, int64_t rows, Tile<T> tile) const {
    tiles.compute(key, rows, tiles.tile(mixtures), tile);
    for (int64_t h = 0; h < args.heads; ++h) {
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t lane = 0; lane < tiles.lanes; lane += kWidth<T>) {
          T* to = tile.head(h) + r * tiles.lanes + lane;
          store(to, exp2(load(to) - load(factors + h * tiles.lanes + lane)));
        }
      }
    }
  }

  // Adds the weighted values of a tile of keys to out_t.
  void weigh(int64_t key, int64_t index) const {
    const int64_t rows = tiles.rows_from(key);
    const Tile<T> tile = kept_tile(index), mixed = tiles.tile(mixtures);
    tiles.begin_keys(key, rows);
    strip ? scales(index) : again(key, rows, tile);
    if (args.dropout == DropoutSite::kBeforeMix) {
      for (int64_t h = 0; h < args.heads; ++h) tiles.drop(h, args.heads, key, rows, tile.head(h));
    }
    tiles.weights.mix(tile, mixed, rows, strip ? factors : nullptr);
    for (int64_t h = 0; h < args.value_heads; ++h) {
      if (args.dropout == DropoutSite::kAfterMix || args.dropout == DropoutSite::kPerKey) {
        tiles.drop(h, args.value_heads, key, rows, mixed.head(h));
      }
      tiles.add_over_keys(args.v, h, args.value_heads, args.value_width, mixed.head(h), key, rows,
                          out_t + h * args.value_width * tiles.lanes);
    }
  }

  void write(const TalkingHeadsOutput<S>& output) const {
    const AttentionSegment& segment = tiles.segment;
    const int64_t first = segment.query_begin + tiles.query;
    for (int64_t h = 0; h < args.value_heads; ++h) {
      transpose_tile(out_t + h * args.value_width * tiles.lanes, tiles.lanes, args.value_width,
                     tiles.count, output.out.at(segment.batch, h, first), output.out.row_stride);
    }
    if (output.log2_sums == nullptr) return;
    for (int64_t h = 0; h < args.heads; ++h) {
      T* to = output.log2_sums + (segment.batch * args.heads + h) * args.queries + first;
      for (int64_t lane = 0; lane < tiles.count; lane += kPanel) {
        const int64_t left = tiles.count - lane;
        softmax_of(h, lane).log2_sums(to + lane, left < kPanel ? left : kPanel);
      }
    }
  }
};

template <class S>
int64_t workspace(const TalkingHeadsArgs<S>& args, const TalkingHeadsPlan& plan) {
  Arena<accumulator_t<S>> arena{nullptr};
  const Forward<S> counted(args, plan, arena);
  return arena.used;
}

template <class S>
void tile(const TalkingHeadsArgs<S>& args, const TalkingHeadsPlan& plan,
          const AttentionSegment& segment, int64_t query, const TalkingHeadsOutput<S>& output,
          accumulator_t<S>* memory) {
  Arena<accumulator_t<S>> arena{memory};
  Forward<S>(args, plan, arena).run(segment, query, output);
}

}  // namespace

extern const TalkingHeadsForwardTable talking_heads_forward_table;
const TalkingHeadsForwardTable talking_heads_forward_table = {{workspace<double>, tile<double>},
                                                              {workspace<float>, tile<float>},
                                                              {workspace<BFloat16>, tile<BFloat16>},
                                                              {workspace<Half>, tile<Half>}};

}  // namespace headloom::kernels::HEADLOOM_ISA

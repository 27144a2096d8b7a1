// Forward pass: tiles of queries go from the coarsest level to the finest. A tile starts from what
// its parents have seen, one level up, and adds the keys of its own level: maximum, sum and mean
// are those of all levels so far.
#include "headloom/mechanisms/h_transformer/h_transformer_tile.h"

namespace headloom::kernels::HEADLOOM_ISA {
namespace {

// Rows of C times their factors, and the product.
template <class T>
struct Rescale {
  static constexpr bool kReadsC = true;
  const T* factors;
  HEADLOOM_INLINE Vec<T> operator()(Vec<T> product, Vec<T> before, int64_t row, int64_t) const {
    return fma(before, set1(factors[row]), product);
  }
};

// E width of values.
template <class T, int kVectors>
class ForwardTile {
 public:
  using Lanes = LaneTile<T, kVectors>;
  static constexpr int64_t kLanes = Lanes::kLanes;
  static constexpr int kTogether = kSharing<T, kVectors>;

  // out [lanes, E]
  ForwardTile(const HAttentionTask<T>& p, const T* q, T* out) : p_(p), q_(q), out_(out) {
    softmax_.reset();
  }

  HEADLOOM_INLINE Lanes& lanes() { return lanes_; }
  // What comes after this tile.
  HEADLOOM_INLINE RowsAhead& ahead() { return ahead_; }

  // Takes what the parents have seen: maximum, sum [lanes] and means [lanes, E].
  HEADLOOM_INLINE void inherit(const T* parent, bool second_half) {
    parent_ = parent;
    second_half_ = second_half;
    unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
      softmax_.maximum[j] = from_parent<kVectors>(parent, second_half, j);
      softmax_.sum[j] = from_parent<kVectors>(parent + kLanes, second_half, j);
    });
  }

  // Adds the keys of a level that the lanes see.
  void attend(const HAttentionLevel<T>& level) {
    const KeyRanges keys = visible_keys(p_.shape, level.level, level.rows, lanes_.low, lanes_.high);
    want_keys(level, keys);
    // Each key counts 2^level times.
    shift(-static_cast<T>(level.level));
    walk_keys(
        keys,
        [&](KeySegment part) HEADLOOM_INLINE_LAMBDA {
          score_keys<kVectors, T>(p_, level, lanes_, q_, part, scores_,
                                  [&]() HEADLOOM_INLINE_LAMBDA { ahead_.more(); });
        },
        [&](const KeySegments& held) HEADLOOM_INLINE_LAMBDA { absorb(level, held); });
    shift(static_cast<T>(level.level));
  }

  // The tile as its children will inherit it.
  HEADLOOM_INLINE void leave(T* state) {
    if (!begun_) begin();
    unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
      store(state + j * kWidth<T>, softmax_.maximum[j]);
      store(state + kLanes + j * kWidth<T>, softmax_.sum[j]);
    });
  }

  // Rows of the output.
  template <class S>
  void finish(const T* query_count, S* rows, int64_t stride) {
    if (!begun_) begin();
    alignas(64) T counts[kLanes] = {};
    for (int64_t i = 0; i < lanes_.live; ++i) counts[i] = query_count[lanes_.first + i];
    alignas(64) T log2_sums[kLanes];
    unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
      const Vec<T> none = zero<T>();
      Vec<T>& sum = softmax_.sum[j];
      sum = select(load(counts + j * kWidth<T>) == none, none, sum);
      store(log2_sums + j * kWidth<T>, finite_shift(softmax_.maximum[j]) + log2(sum));
    });
    alignas(64) T inverse[kLanes];
    unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
      store(inverse + j * kWidth<T>, inverse_or_zero(softmax_.sum[j]));
    });
    scale_rows<1>(lanes_.live, p_.shape.value_width, out_, rows + lanes_.first * stride, stride,
                  [&](int64_t i) HEADLOOM_INLINE_LAMBDA { return inverse[i]; });
    for (int64_t i = 0; i < lanes_.live; ++i) p_.log2_sum[lanes_.first + i] = log2_sums[i];
  }

 private:
  // What the next tile will read of a level and this one does not.
  HEADLOOM_INLINE void want_keys(const HAttentionLevel<T>& x, const KeyRanges& keys) {
    const int64_t step = at_least(kLanes >> lanes_.shift, 1);
    for (int r = 0; r < keys.count; ++r) {
      const int64_t end = keys.range[r].end;
      ahead_.add(false, x.k, x.k_stride, p_.shape.width, end, step, x.rows);
      ahead_.add(false, x.v, x.v_stride, p_.shape.value_width, end, step, x.rows);
    }
  }

  HEADLOOM_INLINE void shift(T by) {
    unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
      softmax_.maximum[j] = softmax_.maximum[j] + set1(by);
    });
  }

  // The parents' means; zeros when there are none.
  HEADLOOM_INLINE void begin() {
    begun_ = true;
    const int64_t width = p_.shape.value_width;
    if (parent_ == nullptr) {
      for (int64_t i = 0; i < width * kLanes; i += kWidth<T>) store(out_ + i, zero<T>());
      return;
    }
    const T* means = parent_ + 2 * kLanes + (second_half_ ? kLanes / 2 * width : 0);
    scale_rows<2>(kLanes, width, means, out_, width,
                  [](int64_t) HEADLOOM_INLINE_LAMBDA { return T(1); });
  }

  HEADLOOM_INLINE void absorb(const HAttentionLevel<T>& level, const KeySegments& held) {
    kernels::HEADLOOM_ISA::absorb(softmax_, scores_, held.rows);
    if (!begun_) begin();
    for (int i = 0; i < held.count && p_.dropout.active; ++i) drop(level.level, held.segment[i]);
    alignas(64) T factors[kLanes];
    unroll<kVectors>(
        [&](auto j) HEADLOOM_INLINE_LAMBDA { store(factors + j * kWidth<T>, softmax_.factor[j]); });
    const int64_t width = p_.shape.value_width;
    for (int64_t lane = 0; lane < lanes_.live; lane += kTogether) {
      T* factor = factors + lane;
      for_seen(p_.shape, level, lanes_, lane, kTogether, held,
               [&](const KeySegment& part) HEADLOOM_INLINE_LAMBDA {
                 rows_product<kTogether>(width, part.count, scores_ + part.row * kLanes + lane,
                                         kLanes, level.v + part.key * level.v_stride,
                                         level.v_stride, out_ + lane * width, Rescale<T>{factor},
                                         [&]() HEADLOOM_INLINE_LAMBDA { ahead_.more(); });
                 for (int i = 0; i < kTogether; ++i) factor[i] = T(1);
               });
    }
  }

  void drop(int level, const KeySegment& part) {
    T* weights = scores_ + part.row * kLanes;
    DropoutMultipliers<T, kVectors> multipliers;
    multipliers.draw(p_, level, lanes_, part);
    for (int64_t i = 0; i < part.count * kLanes; i += kWidth<T>) {
      store(weights + i, load(weights + i) * load(multipliers.values + i));
    }
  }

  const HAttentionTask<T>& p_;
  const T* q_;
  T* out_;
  Lanes lanes_;
  RowsAhead ahead_;
  OnlineSoftmax<T, kVectors> softmax_;
  const T* parent_ = nullptr;
  bool second_half_ = false, begun_ = false;
  alignas(64) T scores_[kMaxKeys * kLanes];
};

// What the query rows [rows.begin, rows.end) of one coarse level see, given what their parents saw.
// States are counted in tiles from the row `origin`, and from `parent_origin` one level up.
template <int kVectors, class T>
void attend_level(const HAttentionTask<T>& p, const HAttentionLevel<T>& level,
                  const HAttentionLevel<T>* parent, RowRange rows, int64_t origin,
                  int64_t parent_origin, T* q) {
  constexpr int64_t kLanes = ForwardTile<T, kVectors>::kLanes;
  const int64_t size = (p.shape.value_width + 2) * kLanes;
  for (int64_t x = rows.begin; x < rows.end; x += kLanes) {
    T* state = level.state + (x - origin) / kLanes * size;
    ForwardTile<T, kVectors> tile(p, q, state + 2 * kLanes);
    tile.lanes().place(x, rows.end, 0);
    tile_columns<kVectors>(level.q, level.q_stride, p.shape.width, p.scale, tile.lanes(), q);
    tile.ahead().add(false, level.q, level.q_stride, p.shape.width, x + kLanes, kLanes, rows.end);
    if (parent != nullptr) {
      const int64_t up = x / 2 - parent_origin;
      tile.inherit(parent->state + up / kLanes * size, up % kLanes != 0);
    }
    tile.attend(level);
    tile.leave(state);
  }
}

// Outputs of the tokens of one chunk.
template <int kVectors, class S>
void attend_tokens(const HAttentionProblem<S>& p, const HAttentionLevel<accumulator_t<S>>* levels,
                   RowRange tokens, int64_t parent_origin,
                   const HAttentionScratch<accumulator_t<S>>& scratch) {
  using T = accumulator_t<S>;
  constexpr int64_t kLanes = ForwardTile<T, kVectors>::kLanes;
  const HAttentionShape& s = p.shape;
  for (int64_t x = tokens.begin; x < tokens.end; x += kLanes) {
    ForwardTile<T, kVectors> tile(p, scratch.tile_q, scratch.tile_out);
    tile.lanes().place(x, tokens.end, 0);
    tile_columns<kVectors>(levels[0].q, levels[0].q_stride, s.width, p.scale, tile.lanes(),
                           scratch.tile_q);
    tile.ahead().add(true, p.out, p.out_stride, s.value_width, x, kLanes, s.time);
    tile.ahead().add(false, levels[0].q, levels[0].q_stride, s.width, x + kLanes, kLanes, s.time);
    if (s.fine) {
      for (int l = s.levels - 1; l > 0; --l) {
        tile.lanes().place(x, tokens.end, l);
        tile.attend(levels[l]);
      }
      tile.lanes().place(x, tokens.end, 0);
    } else if (s.levels > 1) {
      const int64_t up = x / 2 - parent_origin;
      const T* state = levels[1].state + up / kLanes * (s.value_width + 2) * kLanes;
      tile.inherit(state, up % kLanes != 0);
    }
    tile.attend(levels[0]);
    tile.finish(levels[0].query_count, p.out, p.out_stride);
  }
}

// Where the states of a level begin: the chunk's first row, or the first row of all.
HEADLOOM_INLINE int64_t state_origin(const HAttentionShape& s, int level, int64_t first_token) {
  return level < s.stored ? first_token >> level : 0;
}

template <int kVectors, class S>
void attend_chunk(const HAttentionProblem<S>& p, HAttentionLevel<accumulator_t<S>>* levels,
                  int64_t chunk, const HAttentionScratch<accumulator_t<S>>& scratch) {
  using T = accumulator_t<S>;
  const HAttentionShape& s = p.shape;
  const RowRange tokens = chunk_tokens(s, chunk);
  build_local(p, levels, with_halo(s, tokens), tokens);
  for (int l = s.local_levels() - 1; l > 0 && !s.fine; --l) {
    attend_level<kVectors, T>(p, levels[l], l + 1 < s.levels ? &levels[l + 1] : nullptr,
                              tokens.at(l), state_origin(s, l, tokens.begin),
                              state_origin(s, l + 1, tokens.begin), scratch.tile_q);
  }
  attend_tokens<kVectors>(p, levels, tokens, state_origin(s, 1, tokens.begin), scratch);
}

template <class S>
void attend(const HAttentionProblem<S>& p, int64_t first, int64_t last, accumulator_t<S>* local) {
  using T = accumulator_t<S>;
  HAttentionLevel<T> levels[kHAttentionMaxLevels];
  HAttentionScratch<T> scratch;
  h_attention_upper(p.shape, false, p.upper, levels);
  for (int l = p.shape.stored; l < p.shape.levels; ++l) {
    count_whole<T>(p, levels[l]);
  }
  for (int64_t chunk = first; chunk < last; ++chunk) {
    h_attention_local(p.shape, false, chunk * p.shape.chunk, local, levels, scratch);
    if (wide_tiles<T>(p.shape)) {
      attend_chunk<2>(p, levels, chunk, scratch);
    } else {
      attend_chunk<1>(p, levels, chunk, scratch);
    }
  }
}

template <class S>
void store_level(const HAttentionProblem<S>& p, int64_t first, int64_t last,
                 accumulator_t<S>* local) {
  using T = accumulator_t<S>;
  const HAttentionShape& s = p.shape;
  HAttentionLevel<T> levels[kHAttentionMaxLevels];
  HAttentionScratch<T> scratch;
  if (s.stored >= s.levels) return;
  h_attention_upper(s, false, p.upper, levels);
  for (int64_t chunk = first; chunk < last; ++chunk) {
    h_attention_local(s, false, chunk * s.chunk, local, levels, scratch);
    const RowRange tokens = chunk_tokens(s, chunk);
    build_local(p, levels, tokens, tokens);
    // Each level while the one below it is in cache.
    for (int l = s.stored; l < s.chunk_levels(); ++l) {
      count_whole<T>(p, levels[l]);
      coarsen_keys(s, levels[l - 1], levels[l], tokens.at(l));
      if (!s.fine) coarsen_queries(s, levels[l - 1], levels[l], tokens.at(l));
    }
  }
}

template <class S>
void upper_levels(const HAttentionProblem<S>& p, accumulator_t<S>* local) {
  using T = accumulator_t<S>;
  const HAttentionShape& s = p.shape;
  HAttentionLevel<T> levels[kHAttentionMaxLevels];
  HAttentionScratch<T> scratch;
  if (s.stored >= s.levels) return;
  h_attention_upper(s, false, p.upper, levels);
  h_attention_local(s, false, 0, local, levels, scratch);
  for (int l = s.stored; l < s.levels; ++l) {
    count_whole<T>(p, levels[l]);
    if (l < s.chunk_levels()) continue;
    coarsen_keys(s, levels[l - 1], levels[l], {0, levels[l].rows});
    if (!s.fine) coarsen_queries(s, levels[l - 1], levels[l], {0, levels[l].rows});
  }
  for (int l = s.levels - 1; l >= s.stored && !s.fine; --l) {
    const HAttentionLevel<T>* parent = l + 1 < s.levels ? &levels[l + 1] : nullptr;
    const RowRange rows{0, levels[l].rows};
    if (wide_tiles<T>(s)) {
      attend_level<2, T>(p, levels[l], parent, rows, 0, 0, scratch.tile_q);
    } else {
      attend_level<1, T>(p, levels[l], parent, rows, 0, 0, scratch.tile_q);
    }
  }
}

template <class S>
constexpr HAttentionKernels<S> kernels_of() {
  return {store_level<S>, upper_levels<S>, attend<S>};
}

}  // namespace

extern const HAttentionTable h_attention_table;
const HAttentionTable h_attention_table = {kernels_of<double>(), kernels_of<float>(),
                                           kernels_of<BFloat16>(), kernels_of<Half>()};

}  // namespace headloom::kernels::HEADLOOM_ISA

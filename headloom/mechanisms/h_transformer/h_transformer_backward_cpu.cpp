// Backward pass. A tile of queries computes its weights again and from them all three gradients:
// its own, and its part of those of the keys and values that it sees. The latter gather in a window
// of rows around the chunk, in the order of the tiles, and are written once no later tile can see
// them: one thread adds up each row, always in the same order.
#include "headloom/mechanisms/h_transformer/h_transformer_gradient_pyramid.h"
#include "headloom/mechanisms/h_transformer/h_transformer_tile.h"

namespace headloom::kernels::HEADLOOM_ISA {
namespace {

// D width of queries and keys, E width of values.
template <class T>
struct Wanted {
  bool q, k, v;
  T* bias;
};

template <class T, int kVectors>
class BackwardTile {
 public:
  using Lanes = LaneTile<T, kVectors>;
  static constexpr int64_t kLanes = Lanes::kLanes;

  // grad_q [lanes, D]
  BackwardTile(const HAttentionTask<T>& p, const Wanted<T>& wanted,
               const HAttentionScratch<T>& scratch, T* grad_q)
      : p_(p), wanted_(wanted), q_(scratch.tile_q), grad_(scratch.tile_grad), grad_q_(grad_q) {}

  HEADLOOM_INLINE Lanes& lanes() { return lanes_; }

  // The queries `lanes()` of a level.
  void take(const HAttentionLevel<T>& x) {
    queries_ = &x;
    tile_columns<kVectors>(x.q, x.q_stride, p_.shape.width, p_.scale, lanes_, q_);
    tile_columns<kVectors>(x.grad, x.grad_stride, p_.shape.value_width, T(1), lanes_, grad_);
    const int64_t next = lanes_.first + kLanes, end = at_most(next + kLanes, x.rows);
    if (lanes_.live == kLanes) {
      prefetch_rows<false>(x.q, x.q_stride, p_.shape.width, next, kLanes, end);
      prefetch_rows<false>(x.grad, x.grad_stride, p_.shape.value_width, next, kLanes, end);
    }
    for (int64_t i = 0; i < kLanes; ++i) {
      const bool used = i < lanes_.live;
      least_[i] = used ? x.least[lanes_.first + i] : kNoQuery<T>;
      inner_[i] = used ? x.inner[lanes_.first + i] : T(0);
    }
  }

  // The gradient starts as the lanes' share in that of their parents, [lanes, D], or as zeros.
  void inherit(const T* parent, bool second_half) {
    const int64_t width = p_.shape.width;
    if (parent == nullptr) {
      for (int64_t i = 0; i < width * kLanes; i += kWidth<T>) store(grad_q_ + i, zero<T>());
      return;
    }
    const T* share = queries_->query_share + lanes_.first;
    scale_rows<2>(kLanes, width, parent + (second_half ? kLanes / 2 * width : 0), grad_q_, width,
                  [&](int64_t i)
                      HEADLOOM_INLINE_LAMBDA { return i < lanes_.live ? share[i] : T(0); });
  }

  // Adds what goes through the keys of a level that the lanes see.
  void attend(const HAttentionLevel<T>& level) {
    const KeyRanges keys = visible_keys(p_.shape, level.level, level.rows, lanes_.low, lanes_.high);
    prefetch_keys(p_, level, lanes_, keys);
    walk_keys(
        keys,
        [&](KeySegment part) HEADLOOM_INLINE_LAMBDA {
          score_keys<kVectors, T>(p_, level, lanes_, q_, part, weights_);
          lanes_product<kVectors>(part.count, p_.shape.value_width,
                                  level.v + part.key * level.v_stride, level.v_stride, 1, grad_,
                                  grad_logits_ + part.row * kLanes, Assign{});
        },
        [&](const KeySegments& held) HEADLOOM_INLINE_LAMBDA {
          for (int i = 0; i < held.count; ++i) add(level, held.segment[i]);
          if (wanted_.q) add_queries(level, held);
        });
  }

  template <class S>
  void finish(T factor, S* rows, int64_t stride) {
    scale_rows<1>(lanes_.live, p_.shape.width, grad_q_, rows + lanes_.first * stride, stride,
                  [&](int64_t) HEADLOOM_INLINE_LAMBDA { return factor; });
  }

 private:
  // weights = 2^(logit - least), dropped; grad_logits = weight (multiplier <grad, v> - inner).
  HEADLOOM_INLINE void differentiate(int level, const KeySegment& part, const T* multipliers) {
    Vec<T> least[kVectors], inner[kVectors];
    unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
      least[j] = load(least_ + j * kWidth<T>) - set1(static_cast<T>(level));
      inner[j] = load(inner_ + j * kWidth<T>);
    });
    for (int64_t i = 0; i < part.count; ++i) {
      unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
        const int64_t at = i * kLanes + j * kWidth<T>;
        T* weight = weights_ + part.row * kLanes + at;
        T* grad_logit = grad_logits_ + part.row * kLanes + at;
        const Vec<T> whole = exp2(load(weight) - least[j]);
        Vec<T> kept = whole, product = load(grad_logit);
        if (multipliers != nullptr) {
          kept = whole * load(multipliers + at);
          product = product * load(multipliers + at);
        }
        store(weight, kept);
        store(grad_logit, whole * (product - inner[j]));
      });
    }
  }

  HEADLOOM_INLINE void add_bias(const KeySegment& part) {
    for (int64_t i = 0; i < part.count; ++i) {
      T* centre = wanted_.bias + kHAttentionBiasMargin + 2 * p_.shape.block - 1 + lanes_.low -
                  (part.key + i);
      const T* row = grad_logits_ + (part.row + i) * kLanes;
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        centre[static_cast<int>(lanes_.offset[lane])] += row[lane];
      }
    }
  }

  void add(const HAttentionLevel<T>& level, const KeySegment& part) {
    DropoutMultipliers<T, kVectors> multipliers;
    if (p_.dropout.active) multipliers.draw(p_, level.level, lanes_, part);
    differentiate(level.level, part, p_.dropout.active ? multipliers.values : nullptr);
    const T* weights = weights_ + part.row * kLanes;
    const T* grad_logits = grad_logits_ + part.row * kLanes;
    if (wanted_.bias != nullptr) add_bias(part);
    const HAttentionLevel<T>& x = *queries_;
    if (wanted_.v) {
      add_rows(part.count, weights, x.grad, x.grad_stride, p_.shape.value_width,
               level.grad_v + part.key * p_.shape.value_width);
    }
    if (wanted_.k) {
      add_rows(part.count, grad_logits, x.q, x.q_stride, p_.shape.width,
               level.grad_k + part.key * p_.shape.width);
    }
  }

  void add_queries(const HAttentionLevel<T>& level, const KeySegments& held) {
    constexpr int kTogether = kSharing<T, kVectors>;
    const int64_t width = p_.shape.width;
    for (int64_t lane = 0; lane < lanes_.live; lane += kTogether) {
      for_seen(p_.shape, level, lanes_, lane, kTogether, held,
               [&](const KeySegment& part) HEADLOOM_INLINE_LAMBDA {
                 rows_product<kTogether>(width, part.count, grad_logits_ + part.row * kLanes + lane,
                                         kLanes, level.k + part.key * level.k_stride,
                                         level.k_stride, grad_q_ + lane * width, Accumulate{});
               });
    }
  }

  // to[count, width] += factors[count, lanes] rows[lanes, width]
  HEADLOOM_INLINE void add_rows(int64_t count, const T* factors, const T* rows, int64_t stride,
                                int64_t width, T* to) {
    gemm_tile(GemmArgs<T>{count, width, lanes_.live, factors, kLanes, 1,
                          rows + lanes_.first * stride, stride, to, width},
              Accumulate{});
  }

  const HAttentionTask<T>& p_;
  const Wanted<T>& wanted_;
  T *q_, *grad_, *grad_q_;
  const HAttentionLevel<T>* queries_ = nullptr;
  Lanes lanes_;
  alignas(64) T least_[kLanes], inner_[kLanes];
  alignas(64) T weights_[kMaxKeys * kLanes], grad_logits_[kMaxKeys * kLanes];
};

// Queries `rows` of a coarse level; states as in the forward pass.
template <int kVectors, class T>
void differentiate_level(const HAttentionTask<T>& p, const Wanted<T>& wanted,
                         const HAttentionLevel<T>& level, const HAttentionLevel<T>* parent,
                         RowRange rows, int64_t origin, int64_t parent_origin,
                         const HAttentionScratch<T>& scratch) {
  constexpr int64_t kLanes = BackwardTile<T, kVectors>::kLanes;
  const int64_t size = p.shape.width * kLanes;
  for (int64_t x = rows.begin; x < rows.end; x += kLanes) {
    BackwardTile<T, kVectors> tile(p, wanted, scratch,
                                   level.grad_state + (x - origin) / kLanes * size);
    tile.lanes().place(x, rows.end, 0);
    tile.take(level);
    const int64_t up = x / 2 - parent_origin;
    tile.inherit(parent == nullptr ? nullptr : parent->grad_state + up / kLanes * size,
                 up % kLanes != 0);
    tile.attend(level);
  }
}

template <int kVectors, class S, class T>
void differentiate_tokens(const HAttentionGradProblem<S>& p, const Wanted<T>& wanted,
                          const HAttentionLevel<T>* levels, RowRange tokens, int64_t parent_origin,
                          const HAttentionScratch<T>& scratch) {
  constexpr int64_t kLanes = BackwardTile<T, kVectors>::kLanes;
  const HAttentionShape& s = p.shape;
  for (int64_t x = tokens.begin; x < tokens.end; x += kLanes) {
    BackwardTile<T, kVectors> tile(p, wanted, scratch, scratch.tile_grad_q);
    tile.lanes().place(x, tokens.end, 0);
    tile.take(levels[0]);
    const bool coarse = !s.fine && s.levels > 1;
    const int64_t up = x / 2 - parent_origin;
    tile.inherit(coarse ? levels[1].grad_state + up / kLanes * (s.width * kLanes) : nullptr,
                 up % kLanes != 0);
    for (int l = s.fine ? s.levels - 1 : 0; l >= 0; --l) {
      tile.lanes().place(x, tokens.end, l);
      tile.attend(levels[l]);
    }
    if (wanted.q) {
      tile.finish(p.scale * static_cast<T>(0x1.62e42fefa39efp-1), p.grad_q, p.grad_q_stride);
    }
  }
}

template <int kVectors, class S, class T>
void differentiate_chunk(const HAttentionGradProblem<S>& p, const Wanted<T>& wanted,
                         HAttentionLevel<T>* levels, RowRange tokens,
                         const HAttentionScratch<T>& scratch) {
  const HAttentionShape& s = p.shape;
  const auto origin = [&](int level) { return level < s.stored ? tokens.begin >> level : 0; };
  for (int l = s.local_levels() - 1; l > 0; --l) {
    differentiate_level<kVectors, T>(p, wanted, levels[l],
                                     l + 1 < s.levels ? &levels[l + 1] : nullptr, tokens.at(l),
                                     origin(l), origin(l + 1), scratch);
  }
  differentiate_tokens<kVectors>(p, wanted, levels, tokens, origin(1), scratch);
}

// Everything about the local levels but gradients of keys.
template <class S>
void build_gradients(const HAttentionGradProblem<S>& p, HAttentionLevel<accumulator_t<S>>* levels,
                     RowRange keys, RowRange queries) {
  const HAttentionShape& s = p.shape;
  build_local<S>(p, levels, keys, queries);
  take_gradients(p, levels[0], queries);
  for (int l = 0; l < s.local_levels(); ++l) {
    fill_shares(s, levels[l], keys.at(l), queries.at(l));
    if (l > 0) coarsen_gradients(s, levels[l - 1], levels[l], queries.at(l));
  }
}

// Gradients of keys and values of `tokens`, which no later tile sees.
template <class S>
void write_keys(const HAttentionGradProblem<S>& p, HAttentionLevel<accumulator_t<S>>* levels,
                RowRange tokens) {
  using T = accumulator_t<S>;
  const HAttentionShape& s = p.shape;
  if (tokens.begin >= tokens.end) return;
  const int top = s.fine ? s.levels : s.local_levels();
  for (int l = top - 1; l > 0; --l) {
    if (l + 1 < s.levels) pass_down_level(s, levels[l + 1], levels[l], tokens.at(l));
  }
  const HAttentionLevel<T>& x = levels[0];
  const HAttentionLevel<T> parent = s.levels > 1 ? levels[1] : HAttentionLevel<T>{};
  if (p.grad_k != nullptr) {
    pass_down(x.grad_k, parent.grad_k, x.key_share, s.width, tokens,
              p.scale * static_cast<T>(0x1.62e42fefa39efp-1), p.grad_k, p.grad_k_stride);
  }
  if (p.grad_v != nullptr) {
    pass_down(x.grad_v, parent.grad_v, x.key_share, s.value_width, tokens, T(1), p.grad_v,
              p.grad_v_stride);
  }
}

template <class S>
Wanted<accumulator_t<S>> wanted_of(const HAttentionGradProblem<S>& p) {
  return {p.grad_q != nullptr, p.grad_k != nullptr, p.grad_v != nullptr, p.grad_bias};
}

template <class S>
void differentiate(const HAttentionGradProblem<S>& p, int64_t first, int64_t last,
                   accumulator_t<S>* local) {
  using T = accumulator_t<S>;
  const HAttentionShape& s = p.shape;
  HAttentionLevel<T> levels[kHAttentionMaxLevels];
  HAttentionScratch<T> scratch;
  h_attention_upper(s, true, p.upper, levels);
  for (int l = s.stored; l < s.levels; ++l) {
    count_whole<T>(p, levels[l]);
  }
  const RowRange own{first * s.chunk, at_most(last * s.chunk, s.time)};
  // Queries of the neighbours see own keys as well.
  const int64_t begin = s.causal ? first : at_least(first - 1, 0);
  const int64_t end = at_most(last + 1, s.chunks());
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    const RowRange tokens = chunk_tokens(s, chunk);
    h_attention_local(s, true, tokens.begin, local, levels, scratch);
    for (int l = 0; l < s.local_levels(); ++l) {
      const Window window(s, l, tokens.begin);
      if (chunk == begin) {
        window.start(levels[l].grad_k, s.width);
        window.start(levels[l].grad_v, s.value_width);
      } else {
        window.move(levels[l].grad_k, s.width);
        window.move(levels[l].grad_v, s.value_width);
      }
    }
    build_gradients(p, levels, with_halo(s, tokens), tokens);
    Wanted<T> wanted = wanted_of(p);
    if (chunk < first || chunk >= last) {
      wanted.q = false;
      wanted.bias = nullptr;
    }
    if (wide_tiles<T>(s)) {
      differentiate_chunk<2>(p, wanted, levels, tokens, scratch);
    } else {
      differentiate_chunk<1>(p, wanted, levels, tokens, scratch);
    }
    const int64_t done = chunk + 1 == end ? own.end : tokens.begin + s.chunk - s.halo_before;
    write_keys(p, levels,
               {at_least(tokens.begin - s.halo_before, own.begin), at_most(done, own.end)});
  }
}

template <class T>
void coarsen(const HAttentionShape& s, const HAttentionLevel<T>& from, HAttentionLevel<T>& to,
             RowRange rows) {
  coarsen_keys(s, from, to, rows);
  if (s.fine) return;
  coarsen_queries(s, from, to, rows);
  coarsen_gradients(s, from, to, rows);
}

template <class S>
void store_level(const HAttentionGradProblem<S>& p, int64_t first, int64_t last,
                 accumulator_t<S>* local) {
  using T = accumulator_t<S>;
  const HAttentionShape& s = p.shape;
  if (s.stored >= s.levels) return;
  HAttentionLevel<T> levels[kHAttentionMaxLevels];
  HAttentionScratch<T> scratch;
  h_attention_upper(s, true, p.upper, levels);
  for (int64_t chunk = first; chunk < last; ++chunk) {
    h_attention_local(s, true, chunk * s.chunk, local, levels, scratch);
    const RowRange tokens = chunk_tokens(s, chunk);
    build_gradients(p, levels, tokens, tokens);
    for (int l = s.stored; l < s.chunk_levels(); ++l) {
      count_whole<T>(p, levels[l]);
      coarsen(s, levels[l - 1], levels[l], tokens.at(l));
    }
  }
}

template <class S>
void upper_levels(const HAttentionGradProblem<S>& p, accumulator_t<S>* local) {
  using T = accumulator_t<S>;
  const HAttentionShape& s = p.shape;
  if (s.stored >= s.levels) return;
  HAttentionLevel<T> levels[kHAttentionMaxLevels];
  HAttentionScratch<T> scratch;
  h_attention_upper(s, true, p.upper, levels);
  h_attention_local(s, true, 0, local, levels, scratch);
  for (int l = s.stored; l < s.levels; ++l) {
    const RowRange rows{0, levels[l].rows};
    count_whole<T>(p, levels[l]);
    clear(levels[l].grad_k, rows.end * s.width);
    clear(levels[l].grad_v, rows.end * s.value_width);
    if (l >= s.chunk_levels()) coarsen(s, levels[l - 1], levels[l], rows);
    fill_shares(s, levels[l], rows, rows);
  }
  const Wanted<T> wanted = wanted_of(p);
  for (int l = s.levels - 1; l >= s.stored && !s.fine; --l) {
    const RowRange rows{0, levels[l].rows};
    const HAttentionLevel<T>* parent = l + 1 < s.levels ? &levels[l + 1] : nullptr;
    if (parent != nullptr) pass_down_level(s, *parent, levels[l], rows);
    if (wide_tiles<T>(s)) {
      differentiate_level<2, T>(p, wanted, levels[l], parent, rows, 0, 0, scratch);
    } else {
      differentiate_level<1, T>(p, wanted, levels[l], parent, rows, 0, 0, scratch);
    }
  }
}

template <class S>
constexpr HAttentionGradKernels<S> kernels_of() {
  return {store_level<S>, upper_levels<S>, differentiate<S>};
}

}  // namespace

extern const HAttentionGradTable h_attention_grad_table;
const HAttentionGradTable h_attention_grad_table = {kernels_of<double>(), kernels_of<float>(),
                                                    kernels_of<BFloat16>(), kernels_of<Half>()};

}  // namespace headloom::kernels::HEADLOOM_ISA

#pragma once

#include "headloom/kernels/exp.h"
#include "headloom/kernels/log.h"
#include "headloom/mechanisms/h_transformer/h_transformer_kernels.h"

// The rows of the levels. J a row of a level, whose children are 2J and 2J + 1 one level below.
namespace headloom::kernels::HEADLOOM_ISA {

struct RowRange {
  int64_t begin, end;

  HEADLOOM_INLINE RowRange at(int level) const {
    return {begin >> level, (end + (int64_t{1} << level) - 1) >> level};
  }
};

HEADLOOM_INLINE int64_t at_most(int64_t a, int64_t b) {
  return a < b ? a : b;
}
HEADLOOM_INLINE int64_t at_least(int64_t a, int64_t b) {
  return a > b ? a : b;
}

// A row that carries no gradient: 2^(logit - kNoQuery) is 0, and differences stay finite.
template <class T>
inline constexpr T kNoQuery = T(1e30);

// Brings rows that are needed soon nearer; rows beyond `limit` do not exist.
template <bool kWrite, class S>
HEADLOOM_INLINE void prefetch_rows(const S* rows, int64_t stride, int64_t width, int64_t first,
                                   int64_t count, int64_t limit) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(S));
  const int64_t end = at_most(first + count, limit);
  for (int64_t i = at_least(first, 0); i < end; ++i) {
    for (int64_t d = 0; d < width; d += kLine) {
      __builtin_prefetch(rows + i * stride + d, kWrite ? 1 : 0);
    }
  }
}

// The same, asked for a few lines at a time between the products of a tile: all at once would fill
// the processor's list of outstanding misses, and the products would wait behind it.
class RowsAhead {
 public:
  template <class S>
  HEADLOOM_INLINE void add(bool written, const S* rows, int64_t stride, int64_t width,
                           int64_t first, int64_t count, int64_t limit) {
    if (part_ == count_) part_ = count_ = 0;
    first = at_least(first, 0);
    count = at_most(count, limit - first);
    if (count <= 0 || count_ == kMost) return;
    const int64_t size = static_cast<int64_t>(sizeof(S));
    const char* begin = reinterpret_cast<const char*>(rows + first * stride);
    if (stride == width) {
      parts_[count_++] = {begin, 0, width * count * size, 1, written};
    } else {
      parts_[count_++] = {begin, stride * size, width * size, count, written};
    }
  }

  HEADLOOM_INLINE void more() {
    constexpr int64_t kLine = 64, kLines = 40;
    for (int64_t lines = kLines; lines > 0 && part_ < count_;) {
      Part& x = parts_[part_];
      const int64_t end = at_most(x.bytes, at_ + lines * kLine);
      lines -= (end - at_ + kLine - 1) / kLine;
      if (x.written) {
        for (; at_ < end; at_ += kLine) __builtin_prefetch(x.row + at_, 1);
      } else {
        for (; at_ < end; at_ += kLine) __builtin_prefetch(x.row + at_, 0);
      }
      if (at_ < x.bytes) return;
      at_ = 0;
      x.row += x.stride;
      if (--x.rows == 0) ++part_;
    }
  }

 private:
  struct Part {
    const char* row;
    int64_t stride, bytes, rows;
    bool written;
  };
  static constexpr int kMost = 8;
  Part parts_[kMost];
  int count_ = 0, part_ = 0;
  int64_t at_ = 0;
};

// log2 of a number of tokens; libm's is not worth its time where all are powers of two.
template <class T>
HEADLOOM_INLINE T log2_count(T count, int level) {
  if (count == static_cast<T>(int64_t{1} << level)) return T(0);
  return log2(set1(count)).native[0] - static_cast<T>(level);
}

// to = from - mean (which may be absent), zeros where padding says so.
template <class S, class T>
HEADLOOM_INLINE void copy_rows(const S* from, int64_t from_stride, RowRange rows, int64_t width,
                               const uint8_t* padding, const T* mean, T* to) {
  for (int64_t i = rows.begin; i < rows.end; ++i) {
    const bool hidden = padding != nullptr && padding[i] != 0;
    for_each_vector<T>(width, [&](int64_t d, auto count) HEADLOOM_INLINE_LAMBDA {
      Vec<T> x = zero<T>();
      if (!hidden) {
        x = load_at(from + i * from_stride + d, count);
        if (mean != nullptr) x = x - load_at(mean + d, count);
      }
      store_at(to + i * width + d, count, x);
    });
  }
}

// A row of level 0 is the input's own where nothing has to be done to it.
template <class S, class T>
HEADLOOM_INLINE void take_rows(const S* from, int64_t from_stride, RowRange rows, int64_t width,
                               const uint8_t* padding, const T* mean, const T*& to,
                               int64_t& to_stride) {
  if constexpr (sizeof(S) == sizeof(T)) {
    if (padding == nullptr && mean == nullptr) {
      to = from;
      to_stride = from_stride;
      return;
    }
  }
  copy_rows(from, from_stride, rows, width, padding, mean, const_cast<T*>(to));
}

template <class S>
void take_tokens(const HAttentionProblem<S>& p, HAttentionLevel<accumulator_t<S>>& x, RowRange keys,
                 RowRange queries) {
  using T = accumulator_t<S>;
  const HAttentionShape& s = p.shape;
  take_rows(p.k, p.k_stride, keys, s.width, p.key_padding, p.key_mean, x.k, x.k_stride);
  take_rows(p.v, p.v_stride, keys, s.value_width, p.key_padding, static_cast<const T*>(nullptr),
            x.v, x.v_stride);
  take_rows(p.q, p.q_stride, queries, s.width, p.query_padding, static_cast<const T*>(nullptr), x.q,
            x.q_stride);
  for (int64_t i = keys.begin; i < keys.end; ++i) {
    const bool hidden = p.key_padding != nullptr && p.key_padding[i] != 0;
    x.key_count[i] = hidden ? T(0) : T(1);
    x.key_bias[i] = hidden ? -ExpConstants<T>::kInfinity : T(0);
  }
  for (int64_t i = queries.begin; i < queries.end; ++i) {
    x.query_count[i] = p.query_padding != nullptr && p.query_padding[i] != 0 ? T(0) : T(1);
  }
}

// How a row is made of its children: a * first + b * second, and a = b when one of them is all.
template <class T>
struct Parents {
  int64_t a, b;
  T count;
};
template <class T>
HEADLOOM_INLINE Parents<T> children_of(int64_t row, int64_t child_rows, const T* count) {
  const int64_t first = 2 * row, second = first + 1;
  const T first_count = count[first];
  const T second_count = second < child_rows ? count[second] : T(0);
  return {first_count > 0 ? first : (second_count > 0 ? second : first),
          second_count > 0 ? second : first, first_count + second_count};
}

template <class T>
HEADLOOM_INLINE void mix_rows(const T* from, int64_t stride, int64_t width, int64_t a, T a_share,
                              int64_t b, T b_share, T* to) {
  const Vec<T> a_shares = set1(a_share), b_shares = set1(b_share);
  for_each_vector<T>(width, [&](int64_t d, auto count) HEADLOOM_INLINE_LAMBDA {
    const Vec<T> part = load_at(from + b * stride + d, count) * b_shares;
    store_at(to + d, count, fma(load_at(from + a * stride + d, count), a_shares, part));
  });
}

template <class T>
HEADLOOM_INLINE T share_of(T count, T whole) {
  return count + count == whole ? T(0.5) : (whole > 0 ? count / whole : T(0));
}

// The part of `rows` that stands for 2^level tokens each, of which the level has `whole`.
HEADLOOM_INLINE RowRange whole_part(RowRange rows, int64_t whole) {
  return {rows.begin, at_least(rows.begin, at_most(rows.end, whole))};
}

// to[row] = (from[2 row] + from[2 row + second]) / 2
template <class T>
HEADLOOM_INLINE void mean_of_pairs(const T* from, int64_t stride, int64_t width, RowRange rows,
                                   int64_t second, const T* to) {
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    mix_rows(from, stride, width, 2 * row, T(0.5), 2 * row + second, T(0.5),
             const_cast<T*>(to) + row * width);
  }
}

template <class T>
void coarsen_keys(const HAttentionShape& s, const HAttentionLevel<T>& from, HAttentionLevel<T>& to,
                  RowRange rows) {
  const RowRange whole = whole_part(rows, to.whole);
  mean_of_pairs(from.k, from.k_stride, s.width, whole, 1, to.k);
  mean_of_pairs(from.v, from.v_stride, s.value_width, whole, 1, to.v);
  for (int64_t row = whole.begin; row < whole.end; ++row) {
    to.key_count[row] = static_cast<T>(int64_t{1} << to.level);
    to.key_bias[row] = T(0);
  }
  for (int64_t row = whole.end; row < rows.end; ++row) {
    const Parents<T> of = children_of(row, from.rows, from.key_count);
    to.key_count[row] = of.count;
    to.key_bias[row] = log2_count(of.count, to.level);
    const bool both = of.a != of.b;
    const T share = both ? share_of(from.key_count[of.a], of.count) : T(0.5);
    const T rest = T(1) - share;
    mix_rows(from.k, from.k_stride, s.width, of.a, share, of.b, rest,
             const_cast<T*>(to.k) + row * s.width);
    mix_rows(from.v, from.v_stride, s.value_width, of.a, share, of.b, rest,
             const_cast<T*>(to.v) + row * s.value_width);
  }
}

// A causal group's query is its first that is not padding: no mean, which would know later tokens.
template <class T>
void coarsen_queries(const HAttentionShape& s, const HAttentionLevel<T>& from,
                     HAttentionLevel<T>& to, RowRange rows) {
  const RowRange whole = whole_part(rows, to.whole_queries);
  mean_of_pairs(from.q, from.q_stride, s.width, whole, s.causal ? 0 : 1, to.q);
  for (int64_t row = whole.begin; row < whole.end; ++row) {
    to.query_count[row] = static_cast<T>(int64_t{1} << to.level);
  }
  for (int64_t row = whole.end; row < rows.end; ++row) {
    const Parents<T> of = children_of(row, from.rows, from.query_count);
    to.query_count[row] = of.count;
    const int64_t b = s.causal ? of.a : of.b;
    const T share = of.a != b ? share_of(from.query_count[of.a], of.count) : T(0.5);
    mix_rows(from.q, from.q_stride, s.width, of.a, share, b, T(1) - share,
             const_cast<T*>(to.q) + row * s.width);
  }
}

// The shares of the children `rows` in their parents, for keys and queries.
template <class T>
void fill_shares(const HAttentionShape& s, HAttentionLevel<T>& x, RowRange keys, RowRange queries) {
  for (int64_t i = keys.begin; i < keys.end; ++i) {
    const int64_t other = i ^ 1;
    const T whole = x.key_count[i] + (other < x.rows ? x.key_count[other] : T(0));
    x.key_share[i] = share_of(x.key_count[i], whole);
  }
  if (x.query_share == nullptr) return;
  for (int64_t i = queries.begin; i < queries.end; ++i) {
    const int64_t other = i ^ 1;
    const T other_count = other < x.rows ? x.query_count[other] : T(0);
    if (s.causal) {
      const bool is_first = (i & 1) == 0 || other_count == 0;
      x.query_share[i] = is_first && x.query_count[i] > 0 ? T(1) : T(0);
    } else {
      x.query_share[i] = share_of(x.query_count[i], x.query_count[i] + other_count);
    }
  }
}

template <class T>
HEADLOOM_INLINE void count_whole(const HAttentionTask<T>& p, HAttentionLevel<T>& x) {
  const int64_t whole = p.shape.time >> x.level;
  x.whole = p.key_padding != nullptr ? 0 : whole;
  x.whole_queries = p.query_padding != nullptr ? 0 : whole;
}

// Keys and queries of the tokens `keys` and `queries` at all local levels.
template <class S>
void build_local(const HAttentionProblem<S>& p, HAttentionLevel<accumulator_t<S>>* levels,
                 RowRange keys, RowRange queries) {
  const HAttentionShape& s = p.shape;
  for (int l = 0; l < s.local_levels(); ++l) {
    count_whole<accumulator_t<S>>(p, levels[l]);
    if (l == 0) {
      take_tokens(p, levels[0], keys, queries);
      continue;
    }
    coarsen_keys(s, levels[l - 1], levels[l], keys.at(l));
    if (!s.fine) coarsen_queries(s, levels[l - 1], levels[l], queries.at(l));
  }
}

HEADLOOM_INLINE RowRange chunk_tokens(const HAttentionShape& s, int64_t chunk) {
  return {chunk * s.chunk, at_most((chunk + 1) * s.chunk, s.time)};
}
HEADLOOM_INLINE RowRange with_halo(const HAttentionShape& s, RowRange tokens) {
  return {at_least(tokens.begin - s.halo_before, 0), at_most(tokens.end + s.halo_after, s.time)};
}

}  // namespace headloom::kernels::HEADLOOM_ISA

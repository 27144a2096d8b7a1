#pragma once

#include "headloom/mechanisms/h_transformer/h_transformer_pyramid.h"

// What the backward pass has beside the rows of the levels: the queries' gradients, scaled so that
// none overflows, and the way of the keys' gradients back to the tokens.
namespace headloom::kernels::HEADLOOM_ISA {

// Level 0: the gradient of the output, its product with the output, and log2_sum.
template <class S>
void take_gradients(const HAttentionGradProblem<S>& p, HAttentionLevel<accumulator_t<S>>& x,
                    RowRange tokens) {
  using T = accumulator_t<S>;
  const int64_t width = p.shape.value_width;
  take_rows(p.grad_out, p.grad_out_stride, tokens, width, p.query_padding,
            static_cast<const T*>(nullptr), x.grad, x.grad_stride);
  for (int64_t i = tokens.begin; i < tokens.end; ++i) {
    const bool blind = x.query_count[i] == 0 || !(p.log2_sum[i] > -kNoQuery<T>);
    Vec<T> inner = zero<T>();
    for_each_vector<T>(width, [&](int64_t e, auto count) HEADLOOM_INLINE_LAMBDA {
      const Vec<T> grad = load_at(x.grad + i * x.grad_stride + e, count);
      inner = fma(grad, load_at(p.out + i * p.out_stride + e, count), inner);
    });
    x.least[i] = blind ? kNoQuery<T> : p.log2_sum[i];
    x.inner[i] = blind ? T(0) : sum_lanes(inner);
  }
}

// A group's least log2_sum, and the sum of its queries' gradients in that scale: factors <= 1.
template <class T>
void coarsen_gradients(const HAttentionShape& s, const HAttentionLevel<T>& from,
                       HAttentionLevel<T>& to, RowRange rows) {
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t a = 2 * row, b = a + 1 < from.rows ? a + 1 : a;
    const T least = from.least[a] < from.least[b] ? from.least[a] : from.least[b];
    const T a_factor = exp2(set1(least - from.least[a])).native[0];
    const T b_factor = a == b ? T(0) : exp2(set1(least - from.least[b])).native[0];
    to.least[row] = least;
    to.inner[row] = a_factor * from.inner[a] + b_factor * from.inner[b];
    mix_rows(from.grad, from.grad_stride, s.value_width, a, a_factor, b, b_factor,
             const_cast<T*>(to.grad) + row * s.value_width);
  }
}

// to[rows] = factor (from[rows] + share parents[rows / 2]); the last term where there are parents.
template <class T, class To>
void pass_down(const T* from, const T* parents, const T* share, int64_t width, RowRange rows,
               T factor, To* to, int64_t to_stride) {
  const Vec<T> factors = set1(factor);
  for (int64_t i = rows.begin; i < rows.end; ++i) {
    for_each_vector<T>(width, [&](int64_t d, auto count) HEADLOOM_INLINE_LAMBDA {
      Vec<T> grad = load_at(from + i * width + d, count);
      if (parents != nullptr) {
        grad = fma(set1(share[i]), load_at(parents + i / 2 * width + d, count), grad);
      }
      store_at(to + i * to_stride + d, count, grad * factors);
    });
  }
}

// Adds the gradients of the parents' keys and values to those of a level.
template <class T>
void pass_down_level(const HAttentionShape& s, const HAttentionLevel<T>& parent,
                     HAttentionLevel<T>& x, RowRange rows) {
  pass_down(x.grad_k, parent.grad_k, x.key_share, s.width, rows, T(1), x.grad_k, s.width);
  pass_down(x.grad_v, parent.grad_v, x.key_share, s.value_width, rows, T(1), x.grad_v,
            s.value_width);
}

template <class T>
HEADLOOM_INLINE void clear(T* begin, int64_t count) {
  for_each_vector<T>(count, [&](int64_t i, auto lanes)
                                HEADLOOM_INLINE_LAMBDA { store_at(begin + i, lanes, zero<T>()); });
}

// The rows around a chunk, whose first token is `begin`, in which gradients of keys gather.
struct Window {
  int64_t first, step, count;  // of rows; step: a chunk's

  HEADLOOM_INLINE Window(const HAttentionShape& s, int level, int64_t begin)
      : first((begin - s.halo_before) >> level),
        step(s.chunk >> level),
        count((s.halo_before + s.chunk + s.halo_after) >> level) {}

  // Makes the window of the chunk before that of this one.
  template <class T>
  HEADLOOM_INLINE void move(T* rows, int64_t width) const {
    T* begin = rows + first * width;
    const int64_t kept = (count - step) * width;
    __builtin_memmove(begin, begin + step * width, static_cast<size_t>(kept) * sizeof(T));
    clear(begin + kept, step * width);
  }
  template <class T>
  HEADLOOM_INLINE void start(T* rows, int64_t width) const {
    clear(rows + first * width, count * width);
  }
};

}  // namespace headloom::kernels::HEADLOOM_ISA

#pragma once

#include <type_traits>

#include "headloom/kernels/online_softmax.h"
#include "headloom/kernels/softmax.h"

// The softmax of contiguous rows (softmax.h) for use inside kernel files.
namespace headloom::kernels::HEADLOOM_ISA {

inline constexpr double kLog2E = 0x1.71547652b82fep0;

// How many independent vectors a reduction carries: one would wait for its own latency.
inline constexpr int kReductionVectors = 4;

// Folds step(carried, start, count) over [0, length) and combines the carried vectors at the end.
// Step has the form Vec<T>(Vec<T> carried, int64_t start, count); lanes beyond count are the
// step's.
template <class T, class Step, class Combine>
HEADLOOM_INLINE Vec<T> reduce_vectors(int64_t length, Vec<T> start_value, const Step& step,
                                      const Combine& combine) {
  Vec<T> carried[kReductionVectors];
  unroll<kReductionVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA { carried[j] = start_value; });
  constexpr int64_t kStride = kReductionVectors * kWidth<T>;
  int64_t i = 0;
  for (; i + kStride <= length; i += kStride) {
    unroll<kReductionVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
      carried[j] = step(carried[j], i + j * kWidth<T>, Index<kWidth<T>>{});
    });
  }
  for_each_vector<T>(length - i, [&](int64_t start, auto count) HEADLOOM_INLINE_LAMBDA {
    carried[0] = step(carried[0], i + start, count);
  });
  return combine(combine(carried[0], carried[1]), combine(carried[2], carried[3]));
}

// `value` in the lanes that take part, `otherwise` in the rest.
template <bool kMasked, class T, class Count>
HEADLOOM_INLINE Vec<T> where_kept(const uint8_t* keep, int64_t start, Count count, Vec<T> value,
                                  Vec<T> otherwise) {
  if constexpr (kMasked) {
    return select(keep_mask<T>(keep + start, count), value, otherwise);
  } else if constexpr (std::is_same_v<Count, int64_t>) {
    return select(first_lanes<T>(count), value, otherwise);
  } else {
    return value;
  }
}

// One row. `factor` is scale * log2(e); `keep` is read only when kMasked.
template <bool kMasked, class S>
HEADLOOM_INLINE void softmax_row(const S* x, S* y, const uint8_t* keep, int64_t length,
                                 accumulator_t<S> factor) {
  using T = accumulator_t<S>;
  const Vec<T> factors = set1(factor), nothing = set1(-ExpConstants<T>::kInfinity);
  const Vec<T> maxima = reduce_vectors(
      length, nothing,
      [&](Vec<T> most, int64_t i, auto count) HEADLOOM_INLINE_LAMBDA {
        const Vec<T> logit = load_at(x + i, count) * factors;
        return max(where_kept<kMasked>(keep, i, count, logit, nothing), most);
      },
      [](Vec<T> a, Vec<T> b) HEADLOOM_INLINE_LAMBDA { return max(a, b); });
  const Vec<T> shift = finite_shift(set1(max_lanes(maxima)));
  // The product x * factor is not rounded before the maximum is subtracted, so that the error grows
  // with the distance from the maximum and not with |x|.
  const auto weight = [&](int64_t i, auto count) HEADLOOM_INLINE_LAMBDA {
    const Vec<T> logit = fma(load_at(x + i, count), factors, -shift);
    return exp2(where_kept<kMasked>(keep, i, count, logit, nothing));
  };
  // Weights wait in y unless that would round them twice.
  constexpr bool kKeepWeights = sizeof(S) == sizeof(T);
  const Vec<T> sums = reduce_vectors(
      length, zero<T>(),
      [&](Vec<T> sum, int64_t i, auto count) HEADLOOM_INLINE_LAMBDA {
        const Vec<T> w = weight(i, count);
        if constexpr (kKeepWeights) {
          store_at(y + i, count, w);
        }
        return sum + w;
      },
      [](Vec<T> a, Vec<T> b) HEADLOOM_INLINE_LAMBDA { return a + b; });
  const Vec<T> inverse = inverse_or_zero(set1(sum_lanes(sums)));
  for_each_vector<T>(length, [&](int64_t i, auto count) HEADLOOM_INLINE_LAMBDA {
    Vec<T> w;
    if constexpr (kKeepWeights) {
      w = load_at(y + i, count);
    } else {
      w = weight(i, count);
    }
    store_at(y + i, count, w * inverse);
  });
}

// One row of scale y (grad_y - sum grad_y y).
template <bool kMasked, class S>
HEADLOOM_INLINE void softmax_grad_row(const S* y, const S* grad_y, S* grad_x, const uint8_t* keep,
                                      int64_t length, accumulator_t<S> scale) {
  using T = accumulator_t<S>;
  const auto kept = [&](const S* p, int64_t i, auto count) HEADLOOM_INLINE_LAMBDA {
    return where_kept<kMasked>(keep, i, count, load_at(p + i, count), zero<T>());
  };
  const Vec<T> products = reduce_vectors(
      length, zero<T>(),
      [&](Vec<T> sum, int64_t i, auto count)
          HEADLOOM_INLINE_LAMBDA { return fma(kept(y, i, count), kept(grad_y, i, count), sum); },
      [](Vec<T> a, Vec<T> b) HEADLOOM_INLINE_LAMBDA { return a + b; });
  const Vec<T> mean = set1(sum_lanes(products)), scales = set1(scale);
  for_each_vector<T>(length, [&](int64_t i, auto count) HEADLOOM_INLINE_LAMBDA {
    const Vec<T> difference = kept(grad_y, i, count) - mean;
    store_at(grad_x + i, count, scales * kept(y, i, count) * difference);
  });
}

}  // namespace headloom::kernels::HEADLOOM_ISA

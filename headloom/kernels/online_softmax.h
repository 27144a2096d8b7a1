#pragma once

#include "headloom/kernels/log.h"

// The streaming softmax of Milakov and Gimelshein (2018), one query a lane: keys arrive in tiles,
// the running maximum and sum of each lane are vertical operations, no reduction across lanes is
// needed.
//
// Logits are in base 2, their factor log2(e) folded in beforehand. A masked key has the logit -inf.
// A lane that has seen nothing but -inf has sum 0, and its outputs are zeros.
namespace headloom::kernels::HEADLOOM_ISA {

// Subtracting this instead of a maximum of -inf makes 2^(-inf - shift) zero, not NaN.
template <class T>
HEADLOOM_INLINE Vec<T> finite_shift(Vec<T> maximum) {
  constexpr T kLowest = static_cast<T>(sizeof(T) == 8 ? -__DBL_MAX__ : -__FLT_MAX__);
  // In this order NaN in `maximum` stays.
  return max(set1(kLowest), maximum);
}

// 1 / sum, and 0 where there is nothing to divide.
template <class T>
HEADLOOM_INLINE Vec<T> inverse_or_zero(Vec<T> sum) {
  return select(sum == zero<T>(), zero<T>(), set1(T(1)) / sum);
}

// The state of kVectors * kWidth<T> queries. A loop over tiles of scores[keys, queries]:
//
//   if (state.absorb(scores, keys, stride)) state.rescale(out, features, out_stride);
//   out[features, queries] += transpose(values) * scores;       (gemm_tile with Accumulate)
//
// and at the end state.normalize(out, features, out_stride).
template <class T, int kVectors>
struct OnlineSoftmax {
  static constexpr int kQueries = kVectors * kWidth<T>;

  Vec<T> maximum[kVectors];  // of the logits so far
  Vec<T> sum[kVectors];      // of 2^(logit - maximum)
  Vec<T> factor[kVectors];   // what the last absorb() makes older outputs worth

  HEADLOOM_INLINE void reset() {
    unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
      maximum[j] = set1(-ExpConstants<T>::kInfinity);
      sum[j] = zero<T>();
      factor[j] = set1(T(1));
    });
  }

  // Replaces scores[keys, kQueries] by 2^(score - maximum). True when a maximum moved, so that what
  // was gathered with the former weights is to be rescaled before anything is added to it.
  HEADLOOM_INLINE bool absorb(T* scores, int64_t keys, int64_t stride) {
    // Two maxima a vector, so that they do not wait for each other.
    Vec<T> next[kVectors], odd[kVectors], shift[kVectors];
    unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA { next[j] = odd[j] = maximum[j]; });
    int64_t i = 0;
    for (; i + 2 <= keys; i += 2) {
      unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
        const T* score = scores + i * stride + j * kWidth<T>;
        next[j] = max(load(score), next[j]);
        odd[j] = max(load(score + stride), odd[j]);
      });
    }
    unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
      if (i < keys) next[j] = max(load(scores + i * stride + j * kWidth<T>), next[j]);
      next[j] = max(odd[j], next[j]);
    });
    bool moved = false;
    unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
      moved |= any(maximum[j] < next[j]);
      shift[j] = finite_shift(next[j]);
    });
    if (moved) {
      unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
        factor[j] = exp2(finite_shift(maximum[j]) - shift[j]);
        sum[j] = sum[j] * factor[j];
        maximum[j] = next[j];
      });
    }
    for (i = 0; i < keys; ++i) {
      unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
        T* score = scores + i * stride + j * kWidth<T>;
        const Vec<T> weight = exp2(load(score) - shift[j]);
        sum[j] = sum[j] + weight;
        store(score, weight);
      });
    }
    return moved;
  }

  // out[rows, kQueries] times the factor of each query.
  HEADLOOM_INLINE void rescale(T* out, int64_t rows, int64_t stride) const {
    multiply(out, rows, stride, factor);
  }

  // out[rows, kQueries] divided by the sum of each query; zeros where it is 0.
  HEADLOOM_INLINE void normalize(T* out, int64_t rows, int64_t stride) const {
    Vec<T> inverse[kVectors];
    unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA { inverse[j] = inverse_or_zero(sum[j]); });
    multiply(out, rows, stride, inverse);
  }

  // log2_sum[i] = log2 of the sum of 2^logit of query i < count: 2^(logit - log2_sum) is then the
  // weight in a backward pass. -inf where nothing was seen; a backward pass must skip those.
  HEADLOOM_INLINE void log2_sums(T* log2_sum, int64_t count) const {
    unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
      const int64_t left = count - j * kWidth<T>;
      if (left > 0) {
        store_at(log2_sum + j * kWidth<T>, left < kWidth<T> ? left : int64_t{kWidth<T>},
                 finite_shift(maximum[j]) + log2(sum[j]));
      }
    });
  }

  HEADLOOM_INLINE static void multiply(T* out, int64_t rows, int64_t stride,
                                       const Vec<T> (&factors)[kVectors]) {
    for (int64_t i = 0; i < rows; ++i) {
      unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
        T* element = out + i * stride + j * kWidth<T>;
        store(element, load(element) * factors[j]);
      });
    }
  }
};

}  // namespace headloom::kernels::HEADLOOM_ISA

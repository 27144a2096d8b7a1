#include "headloom/kernels/cross_entropy.h"

#include "headloom/kernels/row_softmax.h"

namespace headloom::kernels::HEADLOOM_ISA {

namespace {

template <class T>
HEADLOOM_INLINE Vec<T> maximum_of(const T* x, int64_t length) {
  const Vec<T> nothing = set1(-ExpConstants<T>::kInfinity);
  return set1(max_lanes(reduce_vectors(
      length, nothing,
      [&](Vec<T> most, int64_t i, auto count) HEADLOOM_INLINE_LAMBDA {
        return max(where_kept<false>(nullptr, i, count, load_at(x + i, count), nothing), most);
      },
      [](Vec<T> a, Vec<T> b) HEADLOOM_INLINE_LAMBDA { return max(a, b); })));
}

// e^x is taken of exact differences from the maximum, so that no error grows with the logits.
template <class T>
void row_sums(const RowSumsArgs<T>& args) {
  for (int64_t row = 0; row < args.rows; ++row) {
    const T* x = args.x + row * args.x_stride;
    const Vec<T> maximum = finite_shift(maximum_of(x, args.length));
    Vec<T> below = zero<T>();
    const Vec<T> sum = reduce_vectors(
        args.length, zero<T>(),
        [&](Vec<T> carried, int64_t i, auto count) HEADLOOM_INLINE_LAMBDA {
          const Vec<T> difference = load_at(x + i, count) - maximum;
          below = below + where_kept<false>(nullptr, i, count, difference, zero<T>());
          return carried + where_kept<false>(nullptr, i, count, exp(difference), zero<T>());
        },
        [](Vec<T> a, Vec<T> b) HEADLOOM_INLINE_LAMBDA { return a + b; });
    args.maximum[row] = maximum.native[0];
    args.exponential[row] = sum_lanes(sum);
    args.below[row] = sum_lanes(below);
  }
}

template <class T>
void cross_entropy_grad(const CrossEntropyGradArgs<T>& args) {
  const Vec<T> share =
      set1(static_cast<T>(args.scale * args.smoothing / static_cast<double>(args.length)));
  for (int64_t row = 0; row < args.rows; ++row) {
    const T* x = args.x + row * args.x_stride;
    T* grad = args.grad + row * args.grad_stride;
    const int64_t target = args.targets[row];
    if (target < 0) {
      for_each_vector<T>(args.length, [&](int64_t i, auto count) HEADLOOM_INLINE_LAMBDA {
        store_at(grad + i, count, zero<T>());
      });
      continue;
    }
    const Vec<T> maximum = set1(args.maximum[row]);
    const Vec<T> factor = set1(static_cast<T>(args.scale) / args.exponential[row]);
    for_each_vector<T>(args.length, [&](int64_t i, auto count) HEADLOOM_INLINE_LAMBDA {
      store_at(grad + i, count, fma(exp(load_at(x + i, count) - maximum), factor, -share));
    });
    grad[target] -= static_cast<T>(args.scale * (1.0 - args.smoothing));
  }
}

}  // namespace

extern const CrossEntropyTable cross_entropy_table;
const CrossEntropyTable cross_entropy_table = {{row_sums<double>, cross_entropy_grad<double>},
                                               {row_sums<float>, cross_entropy_grad<float>}};

}  // namespace headloom::kernels::HEADLOOM_ISA

#include "headloom/kernels/vector_math.h"

#include "headloom/kernels/log.h"
#include "headloom/kernels/row_softmax.h"
#include "headloom/kernels/transpose.h"

namespace headloom::kernels::HEADLOOM_ISA {

namespace {

template <class T, class From, class To, class Map>
HEADLOOM_INLINE void map(const From* x, To* y, int64_t length, const Map& f) {
  for_each_vector<T>(length, [&](int64_t i, auto count) HEADLOOM_INLINE_LAMBDA {
    store_at(y + i, count, f(load_at(x + i, count)));
  });
}

template <class T>
void exp2_all(const T* x, T* y, int64_t length) {
  map<T>(x, y, length, [](Vec<T> a) HEADLOOM_INLINE_LAMBDA { return exp2(a); });
}

template <class T>
void exp_all(const T* x, T* y, int64_t length) {
  map<T>(x, y, length, [](Vec<T> a) HEADLOOM_INLINE_LAMBDA { return exp(a); });
}

template <class T>
void log2_all(const T* x, T* y, int64_t length) {
  map<T>(x, y, length, [](Vec<T> a) HEADLOOM_INLINE_LAMBDA { return log2(a); });
}

template <class From, class To>
void convert(const From* x, To* y, int64_t length) {
  map<float>(x, y, length, [](Vec<float> a) HEADLOOM_INLINE_LAMBDA { return a; });
}

template <class T>
T sum_all(const T* x, int64_t length) {
  return sum_lanes(reduce_vectors(
      length, zero<T>(),
      [&](Vec<T> sum, int64_t i, auto count)
          HEADLOOM_INLINE_LAMBDA { return sum + load_at(x + i, count); },
      [](Vec<T> a, Vec<T> b) HEADLOOM_INLINE_LAMBDA { return a + b; }));
}

template <class T>
T max_all(const T* x, int64_t length) {
  const Vec<T> nothing = set1(-ExpConstants<T>::kInfinity);
  return max_lanes(reduce_vectors(
      length, nothing,
      [&](Vec<T> most, int64_t i, auto count) HEADLOOM_INLINE_LAMBDA {
        return max(select(first_lanes<T>(count), load_at(x + i, count), nothing), most);
      },
      [](Vec<T> a, Vec<T> b) HEADLOOM_INLINE_LAMBDA { return max(a, b); }));
}

}  // namespace

extern const VectorMathTable vector_math_table;
const VectorMathTable vector_math_table = {
    kWidth<float>,
    exp2_all<float>,
    exp2_all<double>,
    exp_all<float>,
    exp_all<double>,
    convert<BFloat16, float>,
    convert<Half, float>,
    convert<float, BFloat16>,
    convert<float, Half>,
    sum_all<float>,
    sum_all<double>,
    max_all<float>,
    max_all<double>,
    transpose_tile<float, float>,
    transpose_tile<double, double>,
    transpose_tile<BFloat16, float>,
    transpose_tile<float, Half>,
    log2_all<float>,
    log2_all<double>,
};

}  // namespace headloom::kernels::HEADLOOM_ISA

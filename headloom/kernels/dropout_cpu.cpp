#include "headloom/kernels/dropout.h"

#include "headloom/kernels/philox_lanes.h"

namespace headloom::kernels::HEADLOOM_ISA {

namespace {

// a[0] b[0] a[1] b[1] ... from lane `kFirst` of both on.
template <int kFirst, int... kLane>
HEADLOOM_INLINE Words interleave(Words a, Words b, std::integer_sequence<int, kLane...>) {
  return __builtin_shufflevector(a, b, (kFirst + kLane / 2 + kLane % 2 * kWidth<float>)...);
}
template <int kFirst>
HEADLOOM_INLINE Words interleave(Words a, Words b) {
  return interleave<kFirst>(a, b, std::make_integer_sequence<int, kWidth<float>>{});
}

// The words of 4 kWidth elements in their order: those of a block of four lie in one lane.
HEADLOOM_INLINE PhiloxLanes in_order(const PhiloxLanes& blocks) {
  constexpr int kHalf = kWidth<float> / 2;
  const Words low_even = interleave<0>(blocks.word[0], blocks.word[2]);
  const Words high_even = interleave<kHalf>(blocks.word[0], blocks.word[2]);
  const Words low_odd = interleave<0>(blocks.word[1], blocks.word[3]);
  const Words high_odd = interleave<kHalf>(blocks.word[1], blocks.word[3]);
  return {{interleave<0>(low_even, low_odd), interleave<kHalf>(low_even, low_odd),
           interleave<0>(high_even, high_odd), interleave<kHalf>(high_even, high_odd)}};
}

// Up to kWidth<float> elements.
template <class T, class Count>
HEADLOOM_INLINE void drop(const T* x, T* y, Count count, Words words, uint32_t threshold,
                          float kept) {
  const Vec<float> scaled = load_at(x, count) * set1(kept);
  store_at(y, count, Vec<float>{words < threshold ? zero<float>().native : scaled.native});
}
template <class Count>
HEADLOOM_INLINE void drop(const double* x, double* y, Count count, Words words, uint32_t threshold,
                          double kept) {
  for (int i = 0; i < count; ++i) {
    y[i] = words[i] < threshold ? 0.0 : x[i] * kept;
  }
}

template <class T>
void dropout(const DropoutArgs<T>& args) {
  const auto kept = static_cast<accumulator_t<T>>(args.kept);
  constexpr int64_t kElements = 4 * kWidth<float>;
  for (int64_t i = args.begin; i < args.end; i += kElements) {
    Words low, high;
    for (int lane = 0; lane < kWidth<float>; ++lane) {
      const auto block = static_cast<uint64_t>(i / 4 + lane);
      low[lane] = static_cast<uint32_t>(block);
      high[lane] = static_cast<uint32_t>(block >> 32);
    }
    const PhiloxLanes words = in_order(philox_lanes(args.seed, low, high));
    unroll<4>([&](auto part) HEADLOOM_INLINE_LAMBDA {
      const int64_t start = i + part * kWidth<float>, left = args.end - start;
      if (left >= kWidth<float>) {
        drop(args.x + start, args.y + start, Index<kWidth<float>>{}, words.word[part],
             args.threshold, kept);
      } else if (left > 0) {
        drop(args.x + start, args.y + start, left, words.word[part], args.threshold, kept);
      }
    });
  }
}

}  // namespace

extern const DropoutTable dropout_table;
const DropoutTable dropout_table = {dropout<double>, dropout<float>, dropout<BFloat16>,
                                    dropout<Half>};

}  // namespace headloom::kernels::HEADLOOM_ISA

#include "headloom/kernels/fma_peak.h"

#include "headloom/kernels/simd.h"

namespace headloom::kernels::HEADLOOM_ISA {

namespace {

// Enough sums to cover the latency (4 cycles, 2 a cycle; 6 cycles where it is a multiplication and
// an addition), few enough to stay in registers.
#if defined(HEADLOOM_ISA_avx512)
constexpr int kSums = 16;
#else
constexpr int kSums = 12;
#endif

float run(int64_t rounds) {
  Vec<float> sum[kSums];
  unroll<kSums>([&](auto i)
                    HEADLOOM_INLINE_LAMBDA { sum[i] = set1(1.0f + static_cast<float>(i)); });
  const float factor_value = 0.999f, term_value = 0.001f;
  const Vec<float> factor = broadcast(&factor_value), term = broadcast(&term_value);
  for (int64_t round = 0; round < rounds; ++round) {
    unroll<kSums>([&](auto i) HEADLOOM_INLINE_LAMBDA { sum[i] = fma(sum[i], factor, term); });
  }
  Vec<float> total = zero<float>();
  unroll<kSums>([&](auto i) HEADLOOM_INLINE_LAMBDA { total = total + sum[i]; });
  return sum_lanes(total);
}

}  // namespace

extern const FmaPeakTable fma_peak_table;
const FmaPeakTable fma_peak_table = {run, int64_t{2} * kSums* kWidth<float>};

}  // namespace headloom::kernels::HEADLOOM_ISA

#include "headloom/kernels/row_softmax.h"
#include "headloom/mechanisms/light_conv/light_conv_step_kernels.h"

namespace headloom::kernels::HEADLOOM_ISA {

namespace {

// The kernel of one token from its logits [K]; taps below `first` read nothing.
template <class S, class T>
HEADLOOM_INLINE void read_kernel(const ConvStep<S>& step, const S* logits, int64_t first,
                                 T* weights) {
  for_each_vector<T>(step.kernel_size, [&](int64_t k, auto count) HEADLOOM_INLINE_LAMBDA {
    store_at(weights + k, count, load_at(logits + k, count));
  });
  if (!step.weight_softmax) return;
  const int64_t begin = step.renorm_padding ? first : 0;
  softmax_row<false>(weights + begin, weights + begin, nullptr, step.kernel_size - begin,
                     static_cast<T>(kLog2E));
}

// How many vectors of channels are summed side by side: one sum would wait for its own latency.
inline constexpr int kVectors = 4;

// Taps first .. K - 2 lie in the ring from row `start` on, wrapping round; the last is the value
// itself, which then takes the place of the oldest row.
template <int kCount, class S, class T, class Count>
HEADLOOM_INLINE void sum_taps(const ConvStep<S>& step, const T* weights, int64_t first,
                              int64_t start, int64_t newest, const S* bias, S* ring, S* value,
                              Count count) {
  const int64_t rows = step.kernel_size - 1, stride = step.heads * step.head_channels;
  Vec<T> input[kCount], sum[kCount];
  const Vec<T> last = set1(weights[rows]);
  unroll<kCount>([&](auto j) HEADLOOM_INLINE_LAMBDA {
    input[j] = load_at(value + j * kWidth<T>, count);
    const Vec<T> constant = bias ? load_at(bias + j * kWidth<T>, count) : zero<T>();
    sum[j] = fma(last, input[j], constant);
  });
  const auto add = [&](int64_t k, int64_t row) HEADLOOM_INLINE_LAMBDA {
    const Vec<T> weight = broadcast(weights + k);
    const S* tap = ring + row * stride;
    unroll<kCount>([&](auto j) HEADLOOM_INLINE_LAMBDA {
      sum[j] = fma(weight, load_at(tap + j * kWidth<T>, count), sum[j]);
    });
  };
  int64_t k = first;
  for (int64_t row = start; k < rows && row < rows; ++k, ++row) add(k, row);
  for (int64_t row = 0; k < rows; ++k, ++row) add(k, row);
  unroll<kCount>([&](auto j) HEADLOOM_INLINE_LAMBDA {
    if (rows > 0) store_at(ring + newest * stride + j * kWidth<T>, count, input[j]);
    store_at(value + j * kWidth<T>, count, sum[j]);
  });
}

template <class S>
void conv_step(const ConvStep<S>& step, int64_t begin, int64_t end) {
  using T = accumulator_t<S>;
  constexpr int64_t kBlock = kVectors * kWidth<T>;
  const int64_t taps = step.kernel_size, rows = taps - 1, width = step.head_channels;
  const int64_t channels = step.heads * width;
  T weights[kMaxStepKernelSize];
  for (int64_t pair = begin; pair < end; ++pair) {
    const int64_t b = pair / step.heads, h = pair % step.heads;
    S* ring = rows > 0 ? step.ring + b * rows * channels + h * width : nullptr;
    const S* bias = step.bias ? step.bias + h * width : nullptr;
    const S* logits = step.logits + b * step.logits_batch_stride + h * taps;
    for (int64_t i = 0; i < step.tokens; ++i) {
      const int64_t t = step.position + i;
      const int64_t first = t < rows ? rows - t : 0;
      if (i == 0 || step.logits_token_stride != 0) {
        read_kernel(step, logits + i * step.logits_token_stride, first, weights);
      }
      const int64_t newest = rows > 0 ? t % rows : 0;
      const int64_t start = rows > 0 ? (t + first) % rows : 0;
      S* value = step.values + (b * step.tokens + i) * channels + h * width;
      int64_t c = 0;
      const auto part = [&](int64_t at) { return bias ? bias + at : nullptr; };
      for (; c + kBlock <= width; c += kBlock) {
        sum_taps<kVectors>(step, weights, first, start, newest, part(c), ring + c, value + c,
                           Index<kWidth<T>>{});
      }
      for_each_vector<T>(width - c, [&](int64_t at, auto count) HEADLOOM_INLINE_LAMBDA {
        sum_taps<1>(step, weights, first, start, newest, part(c + at), ring + c + at,
                    value + c + at, count);
      });
    }
  }
}

}  // namespace

extern const ConvStepTable conv_step_table;
const ConvStepTable conv_step_table = {conv_step<double>, conv_step<float>, conv_step<BFloat16>,
                                       conv_step<Half>};

}  // namespace headloom::kernels::HEADLOOM_ISA

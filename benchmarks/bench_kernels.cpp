// The floor's kernels beside the multiply-add peak that is measured between their samples, for
// every instruction set that runs here. Times are the thread's processor time, so that other
// programs disturb little; each figure is a median.
//
//   build/bench_kernels [samples]     default 15
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "headloom/kernels/fma_peak.h"
#include "headloom/kernels/gemm.h"
#include "headloom/kernels/softmax.h"
#include "headloom/kernels/vector_math.h"

namespace headloom::kernels {
namespace {

int samples = 15;

double thread_seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Measured {
  double seconds;        // of one call
  double share_of_peak;  // flops / seconds / peak, when flops were given
};

// Long enough samples for the clock, short enough to fit between interruptions; the peak is
// measured before each.
Measured measure(Isa isa, double flops, const std::function<void()>& call) {
  constexpr double kSample = 2e-3;
  call();
  const double start = thread_seconds();
  call();
  const int calls = std::max(1, static_cast<int>(kSample / (thread_seconds() - start + 1e-9)));
  std::vector<double> seconds, shares;
  for (int sample = 0; sample < samples; ++sample) {
    const double peak = 1e9 * fma_peak_gflops(isa, 5e-4);
    const double begin = thread_seconds();
    for (int i = 0; i < calls; ++i) {
      call();
    }
    seconds.push_back((thread_seconds() - begin) / calls);
    shares.push_back(flops / seconds.back() / peak);
  }
  return {median(seconds), median(shares)};
}

// 64-byte aligned, filled with values that are neither zero nor constant.
template <class T>
class Array {
 public:
  explicit Array(int64_t size)
      : data_(static_cast<T*>(
            std::aligned_alloc(64, (static_cast<size_t>(size) * sizeof(T) + 63) / 64 * 64))) {
    for (int64_t i = 0; i < size; ++i) {
      data_[i] = static_cast<T>(static_cast<float>(i * 37 % 101) / 50.0f - 1.0f);
    }
  }
  ~Array() { std::free(data_); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  T* get() const { return data_; }

 private:
  T* data_;
};

template <class T>
double gemm_share(Isa isa, int64_t m, int64_t n, int64_t k, bool transposed_a) {
  Array<T> a(m * k), b(k * n), c(m * n);
  const GemmArgs<T> args{
      m, n, k, a.get(), transposed_a ? 1 : k, transposed_a ? m : 1, b.get(), n, c.get(), n, false};
  const double flops = 2.0 * static_cast<double>(m * n * k);
  const GemmTable& table = gemm_table(isa);
  return 100 * measure(isa, flops, [&] {
                 if constexpr (sizeof(T) == 4) {
                   table.f32(args);
                 } else {
                   table.f64(args);
                 }
               }).share_of_peak;
}

void bench_gemm(Isa isa) {
  constexpr int64_t kShapes[][3] = {{64, 64, 64},   {12, 512, 12},  {16, 64, 64},   {32, 32, 64},
                                    {32, 64, 64},   {64, 128, 64},  {128, 128, 64}, {256, 256, 64},
                                    {64, 64, 128},  {64, 64, 256},  {128, 64, 128}, {256, 64, 256},
                                    {512, 512, 64}, {512, 64, 512}, {63, 64, 63},   {64, 63, 64},
                                    {64, 65, 64},   {1, 64, 64},    {64, 1, 64}};
  std::printf("  %% of peak           A B    A^T B   (tiles that stay in cache, float32)\n");
  for (const auto& [m, n, k] : kShapes) {
    std::printf("  %4ld,%4ld,%4ld    %6.1f   %6.1f\n", static_cast<long>(m), static_cast<long>(n),
                static_cast<long>(k), gemm_share<float>(isa, m, n, k, false),
                gemm_share<float>(isa, m, n, k, true));
  }
  std::printf("  64,64,64 float64  %6.1f   %6.1f   (of half the float32 peak)\n",
              2 * gemm_share<double>(isa, 64, 64, 64, false),
              2 * gemm_share<double>(isa, 64, 64, 64, true));
}

void print_rate(const char* what, double elements, const Measured& measured) {
  std::printf("  %-34s %6.2f Gelements/s\n", what, 1e-9 * elements / measured.seconds);
}

void bench_vector_math(Isa isa) {
  constexpr int64_t kLength = 2048;
  Array<float> x(kLength), y(kLength);
  Array<double> x64(kLength), y64(kLength);
  Array<BFloat16> narrow(kLength);
  const VectorMathTable& table = vector_math_table(isa);
  print_rate("exp2 float32", kLength,
             measure(isa, 0, [&] { table.exp2_f32(x.get(), y.get(), kLength); }));
  print_rate("exp float32", kLength,
             measure(isa, 0, [&] { table.exp_f32(x.get(), y.get(), kLength); }));
  print_rate("exp2 float64", kLength,
             measure(isa, 0, [&] { table.exp2_f64(x64.get(), y64.get(), kLength); }));
  print_rate("float32 to bfloat16", kLength,
             measure(isa, 0, [&] { table.narrow_bf16(x.get(), narrow.get(), kLength); }));
  print_rate("transpose 64x32 float32", kLength,
             measure(isa, 0, [&] { table.transpose_f32(x.get(), 32, 64, 32, y.get(), 64, 1.0f); }));
}

template <class T>
void bench_softmax(Isa isa, const RowSoftmaxKernels<T>& kernels, const char* type) {
  for (int64_t length : {16, 64, 1000, 1024}) {
    const int64_t rows = std::max<int64_t>(1, 4096 / length);
    Array<T> x(rows * length), y(rows * length), grad(rows * length), grad_x(rows * length);
    const std::string size = std::to_string(rows) + "x" + std::to_string(length) + " " + type;
    print_rate(("softmax " + size).c_str(), static_cast<double>(rows * length),
               measure(isa, 0, [&] {
                 kernels.forward({rows, length, x.get(), length, y.get(), length});
               }));
    print_rate(("softmax gradient " + size).c_str(), static_cast<double>(rows * length),
               measure(isa, 0, [&] {
                 kernels.backward(
                     {rows, length, y.get(), length, grad.get(), length, grad_x.get(), length});
               }));
  }
}

}  // namespace
}  // namespace headloom::kernels

int main(int argc, char** argv) {
  using namespace headloom::kernels;
  if (argc > 1) {
    samples = std::max(1, std::atoi(argv[1]));
  }
  for (Isa isa : available_isas()) {
    std::printf("%s: multiply-add peak %.1f GFLOP/s\n", name(isa), fma_peak_gflops(isa, 0.05));
    bench_gemm(isa);
    bench_vector_math(isa);
    bench_softmax(isa, softmax_table(isa).f32, "float32");
    bench_softmax(isa, softmax_table(isa).bf16, "bfloat16");
    std::printf("\n");
  }
  return 0;
}

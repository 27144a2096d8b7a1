#include "headloom/kernels/vector_math.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/kernels/guarded.h"
#include "tests/support/rounding.h"

namespace headloom::kernels {
namespace {

using headloom::testing::gemm_bound;
using testing::fill_uniform;
using testing::from_double;
using testing::Guarded;
using testing::to_double;

constexpr int64_t kTwoVectors = 34;  // of the widest set, in floats, and a little more

template <class T>
bool same_value(T a, T b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0 ||
         (std::isnan(to_double(a)) && std::isnan(to_double(b)));
}

// Runs a map over every length and several addresses and compares each element with one that was
// computed alone, in the middle of a whole vector.
template <class From, class To>
void check_lengths(void (*map)(const From*, To*, int64_t)) {
  std::vector<From> input(kTwoVectors);
  fill_uniform(input.data(), kTwoVectors, 3, 30.0);
  std::vector<To> expected(kTwoVectors);
  for (int64_t i = 0; i < kTwoVectors; ++i) {
    std::vector<From> repeated(32, input[static_cast<size_t>(i)]);
    std::vector<To> result(32);
    map(repeated.data(), result.data(), 32);
    expected[static_cast<size_t>(i)] = result[7];
  }
  for (int64_t length = 0; length <= kTwoVectors; ++length) {
    for (int64_t gap = 0; gap < 4; ++gap) {
      Guarded<From> x(length, gap);
      Guarded<To> y(length, (gap + 1) % 4);
      std::copy_n(input.data(), length, x.data());
      map(x.data(), y.data(), length);
      for (int64_t i = 0; i < length; ++i) {
        ASSERT_TRUE(same_value(y[i], expected[static_cast<size_t>(i)])) << length << " " << i;
      }
      ASSERT_TRUE(y.surroundings_intact()) << length;
    }
  }
}

TEST(VectorMathTest, EveryLengthAndAddress) {
  for (Isa isa : available_isas()) {
    SCOPED_TRACE(name(isa));
    const VectorMathTable& table = vector_math_table(isa);
    check_lengths(table.exp2_f32);
    check_lengths(table.exp2_f64);
    check_lengths(table.exp_f32);
    check_lengths(table.exp_f64);
    check_lengths(table.widen_bf16);
    check_lengths(table.widen_f16);
    check_lengths(table.narrow_bf16);
    check_lengths(table.narrow_f16);
  }
}

// Inputs over all magnitudes, both signs, and the places where something changes.
template <class T>
std::vector<T> exponents(double low, double high) {
  std::vector<T> x;
  for (int i = 0; i <= 400000; ++i) {
    x.push_back(static_cast<T>(low + (high - low) * i / 400000));
  }
  for (double magnitude = 1e-40; magnitude < 1e30; magnitude *= 1.01) {
    x.push_back(static_cast<T>(magnitude));
    x.push_back(static_cast<T>(-magnitude));
  }
  for (int whole = static_cast<int>(low) - 2; whole <= high + 2; ++whole) {
    for (double half : {0.0, 0.5}) {
      const T value = static_cast<T>(whole + half);
      x.insert(x.end(), {value, std::nextafter(value, T(-1e30)), std::nextafter(value, T(1e30))});
    }
  }
  return x;
}

template <class T>
void check_exponential(void (*map)(const T*, T*, int64_t), long double (*exact)(long double),
                       double allowed, double low, double high) {
  const std::vector<T> x = exponents<T>(low, high);
  std::vector<T> y(x.size());
  map(x.data(), y.data(), static_cast<int64_t>(x.size()));
  constexpr auto kSmallest = std::numeric_limits<T>::min();
  constexpr auto kLargest = std::numeric_limits<T>::max();
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const long double expected = exact(x[i]);
    if (expected < static_cast<long double>(kSmallest)) {
      ASSERT_TRUE(y[i] >= 0 && y[i] <= kSmallest) << x[i] << " " << y[i];
    } else if (expected > static_cast<long double>(kLargest) * (1 + allowed)) {
      ASSERT_EQ(y[i], std::numeric_limits<T>::infinity()) << x[i];
    } else if (expected < static_cast<long double>(kLargest) * (1 - allowed)) {
      const double error = static_cast<double>(std::abs(y[i] / expected - 1));
      ASSERT_LE(error, allowed) << x[i];
      worst = std::max(worst, error);
    }
  }
  ::testing::Test::RecordProperty("worst_relative_error", std::to_string(worst * 1e9) + "e-9");
}

template <class T>
void check_special(void (*map)(const T*, T*, int64_t)) {
  constexpr T kInfinity = std::numeric_limits<T>::infinity();
  constexpr T kLargest = std::numeric_limits<T>::max();
  const T odd_nan = -std::numeric_limits<T>::signaling_NaN();
  std::vector<T> x = {
      0,         T(-0.0), kInfinity, -kInfinity, kLargest,
      -kLargest, T(NAN),  -T(NAN),   odd_nan,    std::numeric_limits<T>::denorm_min()};
  // A NaN whose payload is all ones.
  T full;
  std::memset(&full, 0xff, sizeof(T));
  x.push_back(full);
  const std::vector<T> y_of = {1, 1, kInfinity, 0, kInfinity, 0, NAN, NAN, NAN, 1, NAN};
  std::vector<T> y(x.size());
  map(x.data(), y.data(), static_cast<int64_t>(x.size()));
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_TRUE(same_value(y[i], y_of[i])) << i << ": " << x[i] << " gave " << y[i];
  }
}

TEST(ExpTest, Exp2IsAccurateOverItsRange) {
  for (Isa isa : available_isas()) {
    SCOPED_TRACE(name(isa));
    const VectorMathTable& table = vector_math_table(isa);
    check_exponential<float>(table.exp2_f32, std::exp2, kExp2ErrorF32, -160, 135);
    check_exponential<double>(table.exp2_f64, std::exp2, kExp2ErrorF64, -1100, 1030);
  }
}

TEST(ExpTest, ExpIsAccurateOverItsRange) {
  for (Isa isa : available_isas()) {
    SCOPED_TRACE(name(isa));
    const VectorMathTable& table = vector_math_table(isa);
    check_exponential<float>(table.exp_f32, std::exp, kExpErrorF32, -110, 95);
    check_exponential<double>(table.exp_f64, std::exp, kExpErrorF64, -760, 715);
  }
}

TEST(ExpTest, SpecialValues) {
  for (Isa isa : available_isas()) {
    SCOPED_TRACE(name(isa));
    const VectorMathTable& table = vector_math_table(isa);
    check_special(table.exp2_f32);
    check_special(table.exp2_f64);
    check_special(table.exp_f32);
    check_special(table.exp_f64);
  }
}

TEST(ConvertTest, EveryTwoByteValueAsOneAtATime) {
  std::vector<BFloat16> bf16(0x10000), bf16_again(0x10000);
  std::vector<Half> f16(0x10000), f16_again(0x10000);
  for (int bits = 0; bits < 0x10000; ++bits) {
    bf16[static_cast<size_t>(bits)].bits = f16[static_cast<size_t>(bits)].bits =
        static_cast<uint16_t>(bits);
  }
  std::vector<float> wide(0x10000);
  for (Isa isa : available_isas()) {
    SCOPED_TRACE(name(isa));
    const VectorMathTable& table = vector_math_table(isa);
    table.widen_bf16(bf16.data(), wide.data(), 0x10000);
    table.narrow_bf16(wide.data(), bf16_again.data(), 0x10000);
    for (size_t i = 0; i < wide.size(); ++i) {
      ASSERT_TRUE(same_value(wide[i], static_cast<float>(bf16[i]))) << i;
      ASSERT_TRUE(same_value(bf16_again[i], bf16[i])) << i;
    }
    table.widen_f16(f16.data(), wide.data(), 0x10000);
    table.narrow_f16(wide.data(), f16_again.data(), 0x10000);
    for (size_t i = 0; i < wide.size(); ++i) {
      ASSERT_TRUE(same_value(wide[i], static_cast<float>(f16[i]))) << i;
      ASSERT_TRUE(same_value(f16_again[i], f16[i])) << i;
    }
  }
}

// Floats of every exponent around each value that rounding may turn on.
TEST(ConvertTest, RoundsAsOneAtATime) {
  std::vector<float> x;
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    for (uint32_t low : {0x0001u, 0x0fffu, 0x1000u, 0x1001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      x.push_back(detail::bits_as<float>(bits << 16 | low));
    }
  }
  const auto count = static_cast<int64_t>(x.size());
  std::vector<BFloat16> bf16(x.size());
  std::vector<Half> f16(x.size());
  for (Isa isa : available_isas()) {
    SCOPED_TRACE(name(isa));
    vector_math_table(isa).narrow_bf16(x.data(), bf16.data(), count);
    vector_math_table(isa).narrow_f16(x.data(), f16.data(), count);
    for (size_t i = 0; i < x.size(); ++i) {
      ASSERT_TRUE(same_value(bf16[i], BFloat16(x[i]))) << x[i];
      ASSERT_TRUE(same_value(f16[i], Half(x[i]))) << x[i];
    }
  }
}

template <class T>
void check_reductions(T (*sum)(const T*, int64_t), T (*max)(const T*, int64_t)) {
  for (int64_t length :
       {0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 131, 200}) {
    for (int64_t gap = 0; gap < 4; ++gap) {
      Guarded<T> x(length, gap);
      fill_uniform(x.data(), length, static_cast<uint32_t>(length));
      long double exact = 0;
      T most = -std::numeric_limits<T>::infinity();
      double magnitude = 0;
      for (int64_t i = 0; i < length; ++i) {
        x[i] -= T(2);  // a lane that is no element, a zero, would be the largest
        exact += x[i];
        magnitude += std::abs(to_double(x[i]));
        most = std::max(most, x[i]);
      }
      const double error = static_cast<double>(std::abs(sum(x.data(), length) - exact));
      ASSERT_LE(error, gemm_bound<T>(static_cast<double>(length), magnitude)) << length;
      ASSERT_EQ(max(x.data(), length), most) << length;
    }
  }
}

TEST(VectorMathTest, Reductions) {
  for (Isa isa : available_isas()) {
    SCOPED_TRACE(name(isa));
    const VectorMathTable& table = vector_math_table(isa);
    check_reductions(table.sum_f32, table.max_f32);
    check_reductions(table.sum_f64, table.max_f64);
  }
}

// Both arrays end at a page that may not be touched; rows of the result are apart.
template <class From, class To, class T>
void check_transpose(void (*transpose)(const From*, int64_t, int64_t, int64_t, To*, int64_t, T)) {
  for (int64_t rows = 0; rows <= kTwoVectors; ++rows) {
    for (int64_t columns = 0; columns <= kTwoVectors; columns += rows % 3 == 0 ? 1 : 5) {
      const int64_t from_stride = columns + rows % 3, to_stride = rows + columns % 2;
      Guarded<From> from(rows * columns > 0 ? (rows - 1) * from_stride + columns : 0, rows % 4);
      Guarded<To> to(rows * columns > 0 ? (columns - 1) * to_stride + rows : 0, columns % 4);
      fill_uniform(from.data(), from.size(), 5);
      transpose(from.data(), from_stride, rows, columns, to.data(), to_stride, T(0.5));
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < columns; ++j) {
          const To expected = from_double<To>(0.5 * to_double(from[i * from_stride + j]));
          ASSERT_TRUE(same_value(to[j * to_stride + i], expected)) << rows << "x" << columns;
        }
      }
      for (int64_t j = 0; j < columns && to_stride > rows; ++j) {
        if (j * to_stride + rows < to.size()) {
          ASSERT_TRUE(testing::untouched(to[j * to_stride + rows])) << rows << "x" << columns;
        }
      }
      ASSERT_TRUE(to.surroundings_intact()) << rows << "x" << columns;
    }
  }
}

TEST(TransposeTest, EverySize) {
  for (Isa isa : available_isas()) {
    SCOPED_TRACE(name(isa));
    const VectorMathTable& table = vector_math_table(isa);
    check_transpose(table.transpose_f32);
    check_transpose(table.transpose_f64);
    check_transpose(table.transpose_bf16_f32);
    check_transpose(table.transpose_f32_f16);
  }
}

template <class T>
void check_logarithm(void (*map)(const T*, T*, int64_t), double allowed) {
  std::vector<T> x{std::numeric_limits<T>::min(), std::numeric_limits<T>::max(), T(1), T(0.75)};
  for (int i = 0; i < 200000; ++i) x.push_back(static_cast<T>(0.4 + i * 1e-5));
  for (double magnitude = 1e-37; magnitude < 1e37; magnitude *= 1.001) {
    x.push_back(static_cast<T>(magnitude));
  }
  x.push_back(T(0));
  std::vector<T> y(x.size());
  map(x.data(), y.data(), static_cast<int64_t>(x.size()));
  for (size_t i = 0; i + 1 < x.size(); ++i) {
    const long double exact = std::log2(static_cast<long double>(x[i]));
    const double scale = std::max(1.0, static_cast<double>(std::abs(exact)));
    ASSERT_LE(static_cast<double>(std::abs(y[i] - exact)), allowed * scale) << x[i];
  }
  EXPECT_EQ(y.back(), -std::numeric_limits<T>::infinity());
  EXPECT_EQ(y[2], T(0));
}

TEST(VectorMathTest, Logarithm) {
  for (Isa isa : available_isas()) {
    SCOPED_TRACE(name(isa));
    check_logarithm(vector_math_table(isa).log2_f32, kLog2ErrorF32);
    check_logarithm(vector_math_table(isa).log2_f64, kLog2ErrorF64);
  }
}

}  // namespace
}  // namespace headloom::kernels

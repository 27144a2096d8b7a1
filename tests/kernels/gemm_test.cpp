#include "headloom/kernels/gemm.h"

#include <gtest/gtest.h>

#include <cmath>

#include "headloom/kernels/isa_table.h"
#include "tests/kernels/guarded.h"
#include "tests/support/rounding.h"

namespace headloom::kernels {
namespace {

using headloom::testing::gemm_bound;
using testing::fill_uniform;
using testing::Guarded;
using testing::untouched;

struct Case {
  int64_t m, n, k;
  bool transposed_a = false, accumulate = false;
  int64_t padding = 0;  // elements between rows, which hold NaN
  int64_t gap = 0;      // elements between the arrays' ends and the page that may not be touched
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.m << "x" << c.n << "x" << c.k << (c.transposed_a ? " TN" : " NN")
             << (c.accumulate ? " +=" : " =") << " padding " << c.padding << " gap " << c.gap;
}

int64_t span(int64_t rows, int64_t columns, int64_t stride) {
  return rows > 0 && columns > 0 ? (rows - 1) * stride + columns : 0;
}

template <class T>
void fill_rows(Guarded<T>& matrix, int64_t rows, int64_t columns, int64_t stride, uint32_t seed) {
  for (int64_t i = 0; i < rows && columns > 0; ++i) {
    fill_uniform(matrix.data() + i * stride, columns, seed + static_cast<uint32_t>(i));
  }
}

// T: what is multiplied. Sums are of its accumulator's type.
template <class T>
using Args = GemmArgs<accumulator_t<T>, T>;

template <class T>
void run(Isa isa, const Args<T>& args) {
  member_for<T>(gemm_table(isa))(args);
}

// The element of A B, the sum of absolute values, and what C held before.
template <class T>
::testing::AssertionResult close(const Args<T>& g, int64_t i, int64_t j, accumulator_t<T> before) {
  using Sum = accumulator_t<T>;
  long double sum = g.accumulate ? before : Sum(0), magnitude = std::abs(sum);
  for (int64_t k = 0; k < g.k; ++k) {
    const long double product = static_cast<long double>(static_cast<Sum>(
                                    g.a[i * g.a_row_stride + k * g.a_column_stride])) *
                                static_cast<Sum>(g.b[k * g.b_row_stride + j]);
    sum += product;
    magnitude += std::abs(product);
  }
  const Sum found = g.c[i * g.c_row_stride + j];
  const double error = static_cast<double>(std::abs(found - sum));
  const double bound = gemm_bound<Sum>(static_cast<double>(g.k), static_cast<double>(magnitude));
  if (error <= bound) {
    return ::testing::AssertionSuccess();
  }
  return ::testing::AssertionFailure() << "C(" << i << ", " << j << ") = " << found << ", expected "
                                       << static_cast<double>(sum) << " within " << bound;
}

template <class T>
void check(Isa isa, const Case& c) {
  SCOPED_TRACE(::testing::Message() << name(isa) << " " << sizeof(T) << " bytes " << c);
  const int64_t a_rows = c.transposed_a ? c.k : c.m, a_columns = c.transposed_a ? c.m : c.k;
  const int64_t lda = a_columns + c.padding, ldb = c.n + c.padding, ldc = c.n + c.padding;
  Guarded<T> a(span(a_rows, a_columns, lda), c.gap), b(span(c.k, c.n, ldb), c.gap);
  Guarded<accumulator_t<T>> out(span(c.m, c.n, ldc), c.gap), before(out.size());
  fill_rows(a, a_rows, a_columns, lda, 1);
  fill_rows(b, c.k, c.n, ldb, 1000);
  if (c.accumulate) {
    fill_rows(out, c.m, c.n, ldc, 2000);
  }
  std::copy_n(out.data(), out.size(), before.data());
  const Args<T> args{c.m,
                     c.n,
                     c.k,
                     a.data(),
                     c.transposed_a ? 1 : lda,
                     c.transposed_a ? lda : 1,
                     b.data(),
                     ldb,
                     out.data(),
                     ldc,
                     c.accumulate};
  run<T>(isa, args);
  for (int64_t i = 0; i < c.m; ++i) {
    for (int64_t j = 0; j < c.n; ++j) {
      ASSERT_TRUE(close(args, i, j, before[i * ldc + j]));
    }
    for (int64_t j = c.n; j < ldc && i * ldc + j < out.size(); ++j) {
      ASSERT_TRUE(untouched(out[i * ldc + j])) << "padding of row " << i;
    }
  }
  ASSERT_TRUE(out.surroundings_intact());
}

template <class T>
class GemmTest : public ::testing::Test {};
using Types = ::testing::Types<float, double, BFloat16>;
TYPED_TEST_SUITE(GemmTest, Types);

// Two vectors of the widest set, in elements.
template <class T>
constexpr int64_t kTwoVectors = 2 * 64 / sizeof(accumulator_t<T>);

TYPED_TEST(GemmTest, EveryRowAndColumnCount) {
  for (Isa isa : available_isas()) {
    for (int64_t m = 0; m <= 17; ++m) {
      for (int64_t n = 0; n <= kTwoVectors<TypeParam> + 2; ++n) {
        for (int64_t k : {0, 1, 3}) {
          const int64_t turn = m + n + k;
          check<TypeParam>(isa, {m, n, k, turn % 2 == 1, turn % 3 == 1, turn % 5, turn % 4});
        }
      }
    }
  }
}

TYPED_TEST(GemmTest, EveryDepth) {
  for (Isa isa : available_isas()) {
    for (int64_t k = 0; k <= kTwoVectors<TypeParam> + 2; ++k) {
      for (int64_t gap = 0; gap < 4; ++gap) {
        check<TypeParam>(isa, {9, kTwoVectors<TypeParam> + 1, k, gap % 2 == 1, gap > 1, 0, gap});
        check<TypeParam>(isa, {1, 1, k, gap % 2 == 0, gap > 1, 1, gap});
      }
    }
  }
}

TYPED_TEST(GemmTest, SizesThatCrossBlocks) {
  for (Isa isa : available_isas()) {
    for (bool accumulate : {false, true}) {
      check<TypeParam>(isa, {64, 64, 64, false, accumulate});
      check<TypeParam>(isa, {64, 64, 64, true, accumulate});
      check<TypeParam>(isa, {37, 70, 65, false, accumulate, 3, 1});
      check<TypeParam>(isa, {23, 40, 513, true, accumulate, 0, 2});
      check<TypeParam>(isa, {5, 33, 1030, false, accumulate, 1, 3});
    }
  }
}

// A sum that forgets or repeats one product of many would pass a loose bound; this one is exact.
TYPED_TEST(GemmTest, CountsEachProductOnce) {
  for (Isa isa : available_isas()) {
    for (int64_t k : {1, 7, 511, 512, 513, 1025}) {
      using Sum = accumulator_t<TypeParam>;
      const TypeParam one(1);
      const std::vector<TypeParam> a(static_cast<size_t>(3 * k), one),
          b(static_cast<size_t>(5 * k), one);
      std::vector<Sum> c(15, -1);
      run<TypeParam>(isa, {3, 5, k, a.data(), k, 1, b.data(), 5, c.data(), 5, false});
      for (Sum element : c) {
        ASSERT_EQ(element, static_cast<Sum>(k)) << name(isa);
      }
    }
  }
}

TYPED_TEST(GemmTest, NanAndInfinityComeThrough) {
  for (Isa isa : available_isas()) {
    const auto number = [](float value) { return static_cast<TypeParam>(value); };
    const TypeParam a[] = {number(0), number(1)}, b[] = {number(INFINITY), number(1),   number(2),
                                                         number(1),        number(NAN), number(2)};
    accumulator_t<TypeParam> c[3];
    run<TypeParam>(isa, {1, 3, 2, a, 2, 1, b, 3, c, 3, false});
    EXPECT_TRUE(std::isnan(c[0])) << name(isa);
    EXPECT_TRUE(std::isnan(c[1])) << name(isa);
    EXPECT_EQ(c[2], 2) << name(isa);
  }
}

TYPED_TEST(GemmTest, TheActiveSetIsUsed) {
  const Isa before = active_isa();
  for (Isa isa : available_isas()) {
    use_isa(isa);
    std::vector<TypeParam> a(64 * 64), b(64 * 64);
    std::vector<accumulator_t<TypeParam>> expected(64 * 64), found(64 * 64);
    fill_uniform(a.data(), 64 * 64, 1);
    fill_uniform(b.data(), 64 * 64, 2);
    Args<TypeParam> args{64, 64, 64, a.data(), 64, 1, b.data(), 64, found.data(), 64, false};
    gemm(args);
    args.c = expected.data();
    run<TypeParam>(isa, args);
    EXPECT_EQ(found, expected) << name(isa);
  }
  use_isa(before);
}

}  // namespace
}  // namespace headloom::kernels

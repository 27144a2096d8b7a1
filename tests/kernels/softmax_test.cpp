#include "headloom/kernels/softmax.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "headloom/kernels/vector_math.h"
#include "tests/kernels/guarded.h"
#include "tests/support/rounding.h"

namespace headloom::kernels {
namespace {

using headloom::testing::gemm_bound;
using headloom::testing::rounding_bound;
using headloom::testing::unit_roundoff;
using testing::fill_uniform;
using testing::from_double;
using testing::Guarded;
using testing::to_double;

template <class T>
const RowSoftmaxKernels<T>& kernels(Isa isa) {
  const SoftmaxTable& table = softmax_table(isa);
  if constexpr (std::is_same_v<T, double>) {
    return table.f64;
  } else if constexpr (std::is_same_v<T, float>) {
    return table.f32;
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    return table.bf16;
  } else {
    return table.f16;
  }
}

template <class T>
constexpr double kExp2Error = sizeof(T) == 8 ? kExp2ErrorF64 : kExp2ErrorF32;

// What the masks of a test leave of the positions.
enum class Keep { kAll, kSome, kNone };

std::vector<uint8_t> make_mask(Keep keep, int64_t count) {
  std::vector<uint8_t> mask;
  for (int64_t i = 0; i < count; ++i) {
    // Any value but 0 keeps a position.
    mask.push_back(keep == Keep::kSome && i % 3 != 1 ? static_cast<uint8_t>(1 + 127 * (i % 2)) : 0);
  }
  return mask;
}

struct ExactRow {
  std::vector<double> y, distance;  // softmax, and how far each logit is below the largest
};

template <class T>
ExactRow exact_row(const T* x, const uint8_t* keep, int64_t length, double scale) {
  ExactRow row{std::vector<double>(static_cast<size_t>(length)),
               std::vector<double>(static_cast<size_t>(length))};
  double most = -INFINITY, sum = 0;
  const auto kept = [&](int64_t i) { return keep == nullptr || keep[i] != 0; };
  for (int64_t i = 0; i < length; ++i) {
    most = kept(i) ? std::max(most, scale * to_double(x[i])) : most;
  }
  for (int64_t i = 0; i < length; ++i) {
    if (kept(i)) {
      row.distance[static_cast<size_t>(i)] = most - scale * to_double(x[i]);
      sum += std::exp(-row.distance[static_cast<size_t>(i)]);
    }
  }
  for (int64_t i = 0; i < length; ++i) {
    if (kept(i)) {
      row.y[static_cast<size_t>(i)] = std::exp(-row.distance[static_cast<size_t>(i)]) / sum;
    }
  }
  return row;
}

// Two exponentials, the exponent's own rounding, the sum, the quotient, and storing.
template <class T>
double softmax_bound(double y, double distance, int64_t length) {
  const double u = unit_roundoff<accumulator_t<T>>();
  const double relative = 2 * kExp2Error<T> + u * (4 * distance + static_cast<double>(length) + 4);
  return relative * y + rounding_bound<T>(y) +
         static_cast<double>(std::numeric_limits<float>::min());
}

template <class T>
void check_forward(Isa isa, int64_t length, Keep keep, int64_t gap, double scale) {
  constexpr int64_t kRows = 2;
  SCOPED_TRACE(::testing::Message() << name(isa) << " length " << length << " gap " << gap);
  const int64_t stride = length + gap;
  const int64_t size = length > 0 ? (kRows - 1) * stride + length : 0;
  Guarded<T> x(size, gap), y(size, (gap + 2) % 4);
  fill_uniform(x.data(), size, static_cast<uint32_t>(length), 9.0);
  Guarded<uint8_t> mask(keep == Keep::kAll ? 0 : size, gap);
  const auto pattern = make_mask(keep, size);
  std::copy_n(pattern.data(), mask.size(), mask.data());
  for (int64_t i = 0; i < mask.size(); ++i) {
    if (mask[i] == 0) {
      x[i] = from_double<T>(NAN);
    }
  }
  const uint8_t* keep_data = keep == Keep::kAll ? nullptr : mask.data();
  kernels<T>(isa).forward(
      {kRows, length, x.data(), stride, y.data(), stride, keep_data, stride, scale});
  for (int64_t row = 0; row < kRows; ++row) {
    const uint8_t* row_keep = keep_data == nullptr ? nullptr : keep_data + row * stride;
    const ExactRow exact = exact_row(x.data() + row * stride, row_keep, length, scale);
    for (int64_t i = 0; i < length; ++i) {
      const double expected = exact.y[static_cast<size_t>(i)];
      const double found = to_double(y[row * stride + i]);
      if (row_keep != nullptr && row_keep[i] == 0) {
        ASSERT_EQ(found, 0.0) << i;
      } else {
        ASSERT_LE(std::abs(found - expected),
                  softmax_bound<T>(expected, exact.distance[static_cast<size_t>(i)], length))
            << i << ": " << found << ", expected " << expected;
      }
    }
    for (int64_t i = length; i < stride && row * stride + i < size; ++i) {
      ASSERT_TRUE(testing::untouched(y[row * stride + i]));
    }
  }
  ASSERT_TRUE(y.surroundings_intact());
}

template <class T>
class RowSoftmaxTest : public ::testing::Test {};
using Types = ::testing::Types<double, float, BFloat16, Half>;
TYPED_TEST_SUITE(RowSoftmaxTest, Types);

std::vector<int64_t> lengths() {
  std::vector<int64_t> all;
  for (int64_t length = 0; length <= 34; ++length) {
    all.push_back(length);
  }
  all.insert(all.end(), {63, 64, 65, 66, 80, 97, 127, 129, 200, 1000});
  return all;
}

TYPED_TEST(RowSoftmaxTest, ForwardOfEveryLength) {
  for (Isa isa : available_isas()) {
    for (int64_t length : lengths()) {
      for (int64_t gap = 0; gap < 4; ++gap) {
        check_forward<TypeParam>(isa, length, Keep::kAll, gap, 1.0);
        check_forward<TypeParam>(isa, length, Keep::kSome, gap, 0.25);
      }
      check_forward<TypeParam>(isa, length, Keep::kNone, 1, 1.0);
    }
  }
}

TYPED_TEST(RowSoftmaxTest, LargeLogitsNeitherOverflowNorLoseDigits) {
  for (Isa isa : available_isas()) {
    check_forward<TypeParam>(isa, 40, Keep::kAll, 0, 1000.0);
    check_forward<TypeParam>(isa, 40, Keep::kAll, 0, -1000.0);
  }
}

TYPED_TEST(RowSoftmaxTest, OfOneElementIsOne) {
  for (Isa isa : available_isas()) {
    for (double value : {0.0, -3.7, 55.0}) {
      TypeParam x = from_double<TypeParam>(value), y;
      kernels<TypeParam>(isa).forward({1, 1, &x, 1, &y, 1});
      EXPECT_EQ(to_double(y), 1.0) << name(isa);
    }
  }
}

TYPED_TEST(RowSoftmaxTest, SpecialLogits) {
  for (Isa isa : available_isas()) {
    SCOPED_TRACE(name(isa));
    std::vector<TypeParam> x(21, from_double<TypeParam>(-INFINITY)), y(21);
    const auto run = [&] { kernels<TypeParam>(isa).forward({1, 21, x.data(), 21, y.data(), 21}); };
    run();
    for (TypeParam value : y) {
      EXPECT_EQ(to_double(value), 0.0);
    }
    x[18] = from_double<TypeParam>(-4);
    run();
    for (size_t i = 0; i < y.size(); ++i) {
      EXPECT_EQ(to_double(y[i]), i == 18 ? 1.0 : 0.0);
    }
    x[3] = from_double<TypeParam>(NAN);
    run();
    for (TypeParam value : y) {
      EXPECT_TRUE(std::isnan(to_double(value)));
    }
  }
}

TYPED_TEST(RowSoftmaxTest, WorksInPlaceWithOneMaskForAllRows) {
  constexpr int64_t kRows = 3, kLength = 37;
  const auto mask = make_mask(Keep::kSome, kLength);
  for (Isa isa : available_isas()) {
    std::vector<TypeParam> x(kRows * kLength), y(kRows * kLength);
    fill_uniform(x.data(), kRows * kLength, 8, 5.0);
    RowSoftmaxArgs<TypeParam> args{kRows,    kLength, x.data(),    kLength,
                                   y.data(), kLength, mask.data(), 0};
    kernels<TypeParam>(isa).forward(args);
    args.y = x.data();
    kernels<TypeParam>(isa).forward(args);
    EXPECT_EQ(std::memcmp(x.data(), y.data(), x.size() * sizeof(TypeParam)), 0) << name(isa);
  }
}

template <class T>
void check_backward(Isa isa, int64_t length, Keep keep, int64_t gap) {
  SCOPED_TRACE(::testing::Message() << name(isa) << " length " << length << " gap " << gap);
  const double scale = 0.5;
  Guarded<T> y(length, gap), grad_y(length, (gap + 1) % 4), grad_x(length, (gap + 3) % 4);
  fill_uniform(y.data(), length, static_cast<uint32_t>(length), 1.0);
  fill_uniform(grad_y.data(), length, static_cast<uint32_t>(length) + 77, 2.0);
  const auto mask = make_mask(keep, length);
  const auto kept = [&](int64_t i) {
    return keep == Keep::kAll || mask[static_cast<size_t>(i)] != 0;
  };
  double mean = 0, magnitude = 0;
  for (int64_t i = 0; i < length; ++i) {
    if (kept(i)) {
      mean += to_double(y[i]) * to_double(grad_y[i]);
      magnitude += std::abs(to_double(y[i]) * to_double(grad_y[i]));
    } else {
      grad_y[i] = from_double<T>(NAN);
    }
  }
  kernels<T>(isa).backward({1, length, y.data(), length, grad_y.data(), length, grad_x.data(),
                            length, keep == Keep::kAll ? nullptr : mask.data(), 0, scale});
  using A = accumulator_t<T>;
  for (int64_t i = 0; i < length; ++i) {
    const double found = to_double(grad_x[i]);
    if (!kept(i)) {
      ASSERT_EQ(found, 0.0) << i;
      continue;
    }
    const double weight = std::abs(scale * to_double(y[i]));
    const double expected = scale * to_double(y[i]) * (to_double(grad_y[i]) - mean);
    const double bound =
        weight * (gemm_bound<A>(static_cast<double>(length), magnitude) +
                  4 * unit_roundoff<A>() * (std::abs(to_double(grad_y[i])) + std::abs(mean)));
    ASSERT_LE(std::abs(found - expected), bound + rounding_bound<T>(expected)) << i;
  }
  ASSERT_TRUE(grad_x.surroundings_intact());
}

TYPED_TEST(RowSoftmaxTest, BackwardOfEveryLength) {
  for (Isa isa : available_isas()) {
    for (int64_t length : lengths()) {
      for (int64_t gap = 0; gap < 4; ++gap) {
        check_backward<TypeParam>(isa, length, Keep::kAll, gap);
        check_backward<TypeParam>(isa, length, Keep::kSome, gap);
      }
      check_backward<TypeParam>(isa, length, Keep::kNone, 1);
    }
  }
}

// The gradient against central differences of the forward pass.
TEST(RowSoftmaxGradTest, AgreesWithDifferences) {
  constexpr int64_t kLength = 19;
  constexpr double kStep = 1e-6;
  const auto mask = make_mask(Keep::kSome, kLength);
  for (Isa isa : available_isas()) {
    std::vector<double> x(kLength), y(kLength), weight(kLength), grad_x(kLength);
    fill_uniform(x.data(), kLength, 1, 2.0);
    fill_uniform(weight.data(), kLength, 2, 1.0);
    const RowSoftmaxArgs<double> args{1,       kLength,     x.data(), kLength, y.data(),
                                      kLength, mask.data(), 0,        0.7};
    const auto loss = [&] {
      kernels<double>(isa).forward(args);
      double sum = 0;
      for (size_t i = 0; i < y.size(); ++i) {
        sum += weight[i] * y[i];
      }
      return sum;
    };
    loss();
    kernels<double>(isa).backward({1, kLength, y.data(), kLength, weight.data(), kLength,
                                   grad_x.data(), kLength, mask.data(), 0, 0.7});
    for (size_t i = 0; i < x.size(); ++i) {
      const double before = x[i];
      x[i] = before + kStep;
      const double above = loss();
      x[i] = before - kStep;
      const double below = loss();
      x[i] = before;
      // The rounding of two losses over the step, and the third derivative times its square.
      EXPECT_NEAR(grad_x[i], (above - below) / (2 * kStep), 40 * unit_roundoff<double>() / kStep);
    }
  }
}

}  // namespace
}  // namespace headloom::kernels

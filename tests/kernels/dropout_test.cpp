#include "headloom/kernels/dropout.h"

#include <gtest/gtest.h>

#include "headloom/base/rng.h"
#include "headloom/kernels/isa_table.h"
#include "tests/kernels/guarded.h"

namespace headloom::kernels {
namespace {

using testing::fill_uniform;
using testing::from_double;
using testing::Guarded;
using testing::to_double;

template <class T>
class DropoutKernel : public ::testing::Test {};
using Types = ::testing::Types<double, float, BFloat16, Half>;
TYPED_TEST_SUITE(DropoutKernel, Types);

// Every element of [begin, end) by base/rng.h; a `kept` that all types hold, so that the product is
// exact.
TYPED_TEST(DropoutKernel, FollowsTheCounterOfEachElement) {
  using T = TypeParam;
  const uint64_t seed = 0x123456789abcdefull;
  const auto threshold = static_cast<uint32_t>(drop_threshold(0.5));
  for (const Isa isa : available_isas()) {
    for (const int64_t end : {0, 1, 5, 16, 63, 64, 65, 200, 257}) {
      for (const int64_t begin : {int64_t{0}, int64_t{4}, int64_t{132}}) {
        if (begin > end) continue;
        Guarded<T> x(end, end % 3), y(end, end % 3);
        fill_uniform(x.data(), end, 7);
        member_for<T>(dropout_table(isa))({x.data(), y.data(), begin, end, seed, threshold, 2.0});
        for (int64_t i = begin; i < end; ++i) {
          const bool kept = dropout_keeps(seed, static_cast<uint64_t>(i), threshold);
          ASSERT_EQ(to_double(y.data()[i]), kept ? 2.0 * to_double(x.data()[i]) : 0.0)
              << name(isa) << " element " << i << " of " << begin << " to " << end;
        }
        EXPECT_TRUE(y.surroundings_intact());
      }
    }
  }
}

TYPED_TEST(DropoutKernel, InPlaceIsTheSame) {
  using T = TypeParam;
  for (const Isa isa : available_isas()) {
    constexpr int64_t kCount = 150;
    Guarded<T> x(kCount), y(kCount);
    fill_uniform(x.data(), kCount, 7);
    const auto kernel = member_for<T>(dropout_table(isa));
    const auto threshold = static_cast<uint32_t>(drop_threshold(0.3));
    kernel({x.data(), y.data(), 0, kCount, 3, threshold, 2.0});
    kernel({x.data(), x.data(), 0, kCount, 3, threshold, 2.0});
    for (int64_t i = 0; i < kCount; ++i) {
      ASSERT_EQ(to_double(x.data()[i]), to_double(y.data()[i])) << name(isa) << ' ' << i;
    }
  }
}

}  // namespace
}  // namespace headloom::kernels

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "headloom/kernels/softmax.h"
#include "headloom/kernels/vector_math.h"
#include "tests/kernels/guarded.h"
#include "tests/support/rounding.h"

// The streaming state is reached through the weighted means that StreamedMeanArgs describes.
namespace headloom::kernels {
namespace {

using headloom::testing::gemm_bound;
using headloom::testing::unit_roundoff;
using testing::fill_uniform;
using testing::Guarded;

template <class T>
void run(Isa isa, const StreamedMeanArgs<T>& args) {
  if constexpr (sizeof(T) == 4) {
    softmax_table(isa).streamed_mean_f32(args);
  } else {
    softmax_table(isa).streamed_mean_f64(args);
  }
}

struct Sizes {
  int64_t keys, queries, features, key_tile;
};

template <class T>
struct Problem {
  explicit Problem(const Sizes& s)
      : sizes(s),
        logits(s.keys * s.queries, s.keys % 4),
        values(s.keys * s.features, s.queries % 4),
        out(s.features * s.queries, s.keys % 3),
        log2_sum(s.queries, s.keys % 2) {
    fill_uniform(logits.data(), logits.size(), 1, 20.0);
    fill_uniform(values.data(), values.size(), 2);
  }
  StreamedMeanArgs<T> args() {
    return {sizes.keys,    sizes.queries, sizes.features, sizes.key_tile,
            logits.data(), sizes.queries, values.data(),  sizes.features,
            out.data(),    sizes.queries, log2_sum.data()};
  }
  Sizes sizes;
  Guarded<T> logits, values, out, log2_sum;
};

// One query: its exact log2 sum, and each mean with the bound that rounding allows.
template <class T>
void check_query(Problem<T>& p, int64_t query) {
  const Sizes& s = p.sizes;
  const double u = unit_roundoff<T>();
  const double exp2_error = sizeof(T) == 8 ? kExp2ErrorF64 : kExp2ErrorF32;
  double most = -INFINITY, sum = 0;
  for (int64_t k = 0; k < s.keys; ++k) {
    most = std::max(most, static_cast<double>(p.logits[k * s.queries + query]));
  }
  const bool empty = std::isinf(most);
  for (int64_t k = 0; k < s.keys && !empty; ++k) {
    sum += std::exp2(p.logits[k * s.queries + query] - most);
  }
  const double log2_sum = empty ? -INFINITY : most + std::log2(sum);
  const double tiles = static_cast<double>(s.keys / s.key_tile + 1);
  // A weight is an exponential of a rounded difference, rescaled at most once a tile.
  const double relative =
      (tiles + 1) * (2 * exp2_error + 40 * u) + static_cast<double>(s.keys + 4) * u;
  if (empty) {
    ASSERT_EQ(p.log2_sum[query], -INFINITY);
  } else {
    ASSERT_LE(std::abs(p.log2_sum[query] - log2_sum), 2 * relative + 2 * u * std::abs(log2_sum));
  }
  for (int64_t f = 0; f < s.features; ++f) {
    double mean = 0, magnitude = 0;
    for (int64_t k = 0; k < s.keys && !empty; ++k) {
      const double weight = std::exp2(p.logits[k * s.queries + query] - log2_sum);
      mean += weight * p.values[k * s.features + f];
      magnitude += weight * std::abs(static_cast<double>(p.values[k * s.features + f]));
    }
    const double bound =
        2 * relative * magnitude + gemm_bound<T>(static_cast<double>(s.keys), magnitude);
    ASSERT_LE(std::abs(p.out[f * s.queries + query] - mean), bound) << "feature " << f;
  }
}

template <class T>
void check(Isa isa, Problem<T>& p) {
  SCOPED_TRACE(::testing::Message() << name(isa) << " keys " << p.sizes.keys << " queries "
                                    << p.sizes.queries << " tile " << p.sizes.key_tile);
  run(isa, p.args());
  for (int64_t query = 0; query < p.sizes.queries; ++query) {
    ASSERT_NO_FATAL_FAILURE(check_query(p, query));
  }
  ASSERT_TRUE(p.out.surroundings_intact());
  ASSERT_TRUE(p.log2_sum.surroundings_intact());
}

template <class T>
class OnlineSoftmaxTest : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(OnlineSoftmaxTest, Types);

TYPED_TEST(OnlineSoftmaxTest, EveryQueryCount) {
  for (Isa isa : available_isas()) {
    for (int64_t queries = 0; queries <= 34; ++queries) {
      Problem<TypeParam> p({11, queries, 3, 4});
      check(isa, p);
    }
  }
}

TYPED_TEST(OnlineSoftmaxTest, EveryKeyCountAndTile) {
  for (Isa isa : available_isas()) {
    for (int64_t keys = 0; keys <= 34; ++keys) {
      for (int64_t tile : {1, 5, 16, 64}) {
        Problem<TypeParam> p({keys, 7, 5, tile});
        check(isa, p);
      }
    }
    Problem<TypeParam> large({300, 70, 64, 64});
    check(isa, large);
  }
}

TYPED_TEST(OnlineSoftmaxTest, MaximaThatRiseWithEachKey) {
  for (Isa isa : available_isas()) {
    Problem<TypeParam> p({40, 9, 4, 3});
    for (int64_t i = 0; i < p.logits.size(); ++i) {
      p.logits[i] = static_cast<TypeParam>(3 * (i / 9) - 300);
    }
    check(isa, p);
  }
}

TYPED_TEST(OnlineSoftmaxTest, MaskedKeysAndQueriesWithNothingToAttend) {
  for (Isa isa : available_isas()) {
    for (int64_t tile : {1, 4, 16}) {
      Problem<TypeParam> p({16, 19, 4, tile});
      for (int64_t i = 0; i < p.logits.size(); ++i) {
        const int64_t key = i / 19, query = i % 19;
        // Whole tiles of some queries, single keys of others, everything of query 5.
        if (query == 5 || (query % 4 == 1 && key < 9) || (query + key) % 7 == 0) {
          p.logits[i] = -INFINITY;
        }
      }
      check(isa, p);
      for (int64_t f = 0; f < 4; ++f) {
        EXPECT_EQ(p.out[f * 19 + 5], 0);
      }
    }
  }
}

TYPED_TEST(OnlineSoftmaxTest, NanReachesItsQueryOnly) {
  for (Isa isa : available_isas()) {
    Problem<TypeParam> p({12, 6, 2, 5});
    p.logits[7 * 6 + 3] = NAN;
    run(isa, p.args());
    for (int64_t i = 0; i < p.out.size(); ++i) {
      EXPECT_EQ(std::isnan(p.out[i]), i % 6 == 3) << name(isa);
    }
  }
}

}  // namespace
}  // namespace headloom::kernels

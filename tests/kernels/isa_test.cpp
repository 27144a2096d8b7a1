#include "headloom/kernels/isa.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "headloom/base/check.h"
#include "headloom/kernels/fma_peak.h"
#include "headloom/kernels/gemm.h"

namespace headloom::kernels {
namespace {

using ::testing::HasSubstr;

TEST(IsaTest, BaselineIsAlwaysThereAndTheBestIsLast) {
  const auto isas = available_isas();
  ASSERT_FALSE(isas.empty());
  EXPECT_EQ(isas.front(), Isa::kBaseline);
  EXPECT_EQ(isas.back(), best_isa());
  EXPECT_TRUE(std::is_sorted(isas.begin(), isas.end()));
}

TEST(IsaTest, UsesWhatIsChosen) {
  const Isa before = active_isa();
  for (Isa isa : available_isas()) {
    use_isa(isa);
    EXPECT_EQ(active_isa(), isa);
  }
  use_isa(before);
}

TEST(IsaTest, RefusesWhatDoesNotRunHere) {
  const Isa foreign = static_cast<Isa>(99);
  const Isa before = active_isa();
  for (int attempt = 0; attempt < 2; ++attempt) {
    try {
      attempt == 0 ? use_isa(foreign) : static_cast<void>(gemm_table(foreign));
      ADD_FAILURE() << "expected a refusal";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("expected an instruction set"));
      EXPECT_THAT(error.what(), HasSubstr("baseline"));
      EXPECT_THAT(error.what(), HasSubstr("found unknown"));
    }
  }
  EXPECT_EQ(active_isa(), before);
}

TEST(FmaPeakTest, IsARate) {
  for (Isa isa : available_isas()) {
    EXPECT_GT(fma_peak_gflops(isa, 1e-3), 0) << name(isa);
  }
}

TEST(FmaPeakTest, RefusesNoTime) {
  EXPECT_THROW(fma_peak_gflops(Isa::kBaseline, 0), Error);
}

// The sums of the loop converge to the fixed point of x = 0.999 x + 0.001: nothing was optimised
// away.
TEST(FmaPeakTest, Computes) {
  for (Isa isa : available_isas()) {
    const FmaPeakTable& table = fma_peak_table(isa);
    const double sums = static_cast<double>(table.flops_per_round) / 2;
    EXPECT_NEAR(table.run(100000), sums, 1e-3 * sums) << name(isa);
    EXPECT_GT(table.run(0), 2 * sums) << name(isa);
  }
}

}  // namespace
}  // namespace headloom::kernels

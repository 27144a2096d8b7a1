// The suite finds what is wrong, and nothing in what is right.
#include <gtest/gtest.h>

#include "headloom/base/check.h"
#include "headloom/mechanisms/registry.h"
#include "tests/mechanisms/conformance/moving_sum.h"
#include "tests/support/mixer_conformance.h"

namespace headloom::testing {
namespace {

const bool kJoined = join(moving_sum(Fault::kNone));

const Case& case_of(const Operator& op, const std::string& id) {
  for (const Case& c : op.cases) {
    if (c.id == id) return c;
  }
  fail("conformance test", "a case " + id, "none");
}

std::string text(const Failures& failures) {
  std::string all;
  for (const Failure& failure : failures) all += cat(failure, "\n");
  return all;
}

// A fault, the check and the case that must report it, and what the report must say.
struct Planted {
  std::string id;
  Fault fault;
  Failures (*check)(const Operator&, const Case&);
  std::string in_case;
  std::string says;
};

void PrintTo(const Planted& planted, std::ostream* stream) {
  *stream << planted.id;
}

class PlantedFault : public ::testing::TestWithParam<Planted> {};

TEST_P(PlantedFault, IsReported) {
  const Planted& planted = GetParam();
  const Operator op = moving_sum(planted.fault);
  const Failures failures = planted.check(op, case_of(op, planted.in_case));
  ASSERT_FALSE(failures.empty());
  EXPECT_NE(text(failures).find(planted.says), std::string::npos) << text(failures);
  EXPECT_EQ(failures[0].op, "moving_sum");
  EXPECT_EQ(failures[0].case_id, planted.in_case);
}

INSTANTIATE_TEST_SUITE_P(
    Conformance, PlantedFault,
    ::testing::ValuesIn(std::vector<Planted>{
        {"scaled_gradient", Fault::kGradientScaled, check_differences, "plain", "grad_gain"},
        {"scaled_gradient_padding", Fault::kGradientScaled, check_reference, "padding",
         "grad_gain"},
        {"missing_term", Fault::kGradientTermMissing, check_differences, "plain", "grad_x"},
        {"missing_term_packed", Fault::kGradientTermMissing, check_reference, "packed", "grad_x"},
        {"lone_gradient", Fault::kGradientAlone, check_lone_gradients, "plain", "grad_gain"},
        {"unwritten", Fault::kUnwritten, check_poison, "plain", "not finite"},
        {"unwritten_reference", Fault::kUnwritten, check_reference, "plain", "[1, 8, 2]"},
        {"stale_buffer", Fault::kStaleBuffer, check_poison, "plain", "other stale memory"},
        {"future", Fault::kFutureLeaks, check_causality, "plain", "another end of 1 positions"},
        {"future_gradient", Fault::kFutureGradientLeaks, check_causality, "plain", "grad_x"},
        {"random", Fault::kRandom, check_determinism, "plain", "elements differ in their bits"},
        {"random_poison", Fault::kRandom, check_poison, "plain", "out"},
        {"assumes_contiguous", Fault::kAssumesContiguous, check_strides, "plain", "transposed"},
        {"assumes_contiguous_gaps", Fault::kAssumesContiguous, check_strides, "plain",
         "every second element"},
        {"mask_ignored", Fault::kMaskIgnored, check_padding, "padding", "1000 at padded"},
        {"mask_ignored_rows", Fault::kMaskIgnored, check_nothing_to_attend, "padding",
         "nothing to attend"},
        {"mask_multiplies", Fault::kMaskMultiplies, check_padding, "padding", "with nan"},
        {"padded_gradient", Fault::kPaddedGradient, check_padding, "padding", "grad_x"},
        {"sequences_run_on", Fault::kSequencesRunOn, check_packing, "packed", "separate calls"},
        {"modifies_input", Fault::kModifiesInput, check_purity, "padding", "modified by the call"},
        {"returns_input", Fault::kReturnsInput, check_purity, "plain", "shares its memory"},
        {"coarse_halves", Fault::kCoarseHalves, check_halves, "padding", "max error"},
        {"float_sums", Fault::kFloatSums, check_reference, "plain", "Double: max error"},
        {"wrong_shape", Fault::kWrongShape, check_shapes, "plain", "the shape function"},
        {"other_mask_backward", Fault::kOtherMaskBackward, check_differences, "dropout", "grad_x"},
        {"seed_ignored", Fault::kSeedIgnored, check_dropout, "dropout", "another seed"},
    }),
    [](const auto& info) { return info.param.id; });

TEST(Conformance, WrongGoldenValueIsReported) {
  const Failures failures = check_golden(moving_sum(Fault::kGradientScaled));
  EXPECT_NE(text(failures).find("grad_gain: operator"), std::string::npos) << text(failures);
  EXPECT_EQ(text(failures).find("reference"), std::string::npos) << text(failures);
}

TEST(Conformance, WrongLengthIsReported) {
  const std::string found = text(check_lengths(moving_sum(Fault::kOddLengthWrong)));
  EXPECT_NE(found.find("length_17"), std::string::npos) << found;
  EXPECT_EQ(found.find("length_16,"), std::string::npos) << found;
}

TEST(Conformance, WrongShareOfDropoutIsReported) {
  const std::string found = text(check_dropout_multipliers(moving_sum(Fault::kKeepsTooMany)));
  EXPECT_NE(found.find("the share kept"), std::string::npos) << found;
}

TEST(Conformance, UnscaledDropoutIsReported) {
  EXPECT_FALSE(check_dropout_multipliers(moving_sum(Fault::kNotScaled)).empty());
}

TEST(Conformance, MissingRefusalIsReported) {
  const std::string found = text(check_refusals(moving_sum(Fault::kRefusesNothing)));
  EXPECT_NE(found.find("wide_gain"), std::string::npos) << found;
}

TEST(Conformance, SecondDerivativeIsChecked) {
  const Operator right = moving_sum_twice(Fault::kNone);
  const Failures none = check_double_backward(right, case_of(right, "padding"));
  EXPECT_TRUE(none.empty()) << text(none);
  const Operator wrong = moving_sum_twice(Fault::kWrongSecondDerivative);
  EXPECT_FALSE(check_double_backward(wrong, case_of(wrong, "padding")).empty());
}

TEST(Conformance, UnrefusedSecondDerivativeIsReported) {
  Operator op = moving_sum_twice(Fault::kNone);
  op.double_backward = DoubleBackward::kRefused;
  const std::string found = text(check_double_backward(op, op.cases[0]));
  EXPECT_NE(found.find("was not refused"), std::string::npos) << found;
}

TEST(Conformance, QuadraticMemoryIsReported) {
  const Operator right = moving_sum(Fault::kNone), wrong = moving_sum(Fault::kQuadraticMemory);
  const Failures none = check_memory(right, right.large[0]);
  EXPECT_TRUE(none.empty()) << text(none);
  EXPECT_FALSE(check_memory(wrong, wrong.large[0]).empty());
}

TEST(Conformance, EveryMechanismHasJoined) {
  const std::vector<std::string>& joined = joined_mixers();
  for (const Mechanism* mechanism : mechanisms()) {
    EXPECT_EQ(std::count(joined.begin(), joined.end(), mechanism->name) > 0, true)
        << mechanism->name << " states no cases: call join(Mixer) in its test";
  }
}

}  // namespace
}  // namespace headloom::testing

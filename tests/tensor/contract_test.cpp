#include "headloom/tensor/contract.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "headloom/base/check.h"

namespace headloom {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

template <class... Words>
auto refuses(const Words&... words) {
  return ThrowsMessage<Error>(
      AllOf(HasSubstr("op: expected"), HasSubstr("found"), HasSubstr(std::string(words))...));
}

const at::Tensor kX = at::ones({2, 5, 3});

TEST(Contract, BindsLetters) {
  Contract args("op");
  args.floating("x", kX, {"B", "T", "C"}).same("w", at::ones({3}), {"C"});
  EXPECT_EQ(args.size("T"), 5);
  EXPECT_EQ(args.sym("C"), c10::SymInt(3));
}

TEST(Contract, LetterBindsWithinOneArgument) {
  EXPECT_NO_THROW(Contract("op").floating("m", at::ones({3, 3}), {"C", "C"}));
  EXPECT_THAT(
      [] {
        Contract("op").floating("m", at::ones({3, 4}), {"C", "C"});
      },
      refuses("m of shape [C, C]", "C = 3 as in m", "[3, 4]"));
}

TEST(Contract, OtherNumberOfAxes) {
  EXPECT_THAT(
      [] {
        Contract("op").floating("x", kX, {"B", "C"});
      },
      refuses("x of shape [B, C]", "[2, 5, 3]"));
}

TEST(Contract, SizeThatDisagreesNamesTheFirstOwner) {
  Contract args("op");
  args.floating("x", kX, {"B", "T", "C"});
  EXPECT_THAT(
      [&] {
        args.same("w", at::ones({4, 7}), {"C", "K"});
      },
      refuses("w of shape [C, K]", "C = 3 as in x", "[4, 7]"));
}

TEST(Contract, FloatingTypesOnly) {
  for (const auto type : {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf}) {
    EXPECT_NO_THROW(Contract("op").floating("x", kX.to(type), {"B", "T", "C"}));
  }
  EXPECT_THAT(
      [] {
        Contract("op").floating("x", kX.to(at::kInt), {"B", "T", "C"});
      },
      refuses("float64, float32, bfloat16 or float16", "Int"));
  EXPECT_THAT(
      [] {
        Contract("op").floating("x", kX.to(at::kComplexFloat), {"B", "T", "C"});
      },
      refuses("ComplexFloat"));
}

TEST(Contract, UndefinedTensor) {
  EXPECT_THAT([] { Contract("op").floating("x", at::Tensor(), {"B"}); },
              refuses("a tensor for x", "none"));
  Contract args("op");
  args.floating("x", kX, {"B", "T", "C"});
  EXPECT_THAT([&] { args.same("w", at::Tensor(), {"C"}); }, refuses("a tensor for w"));
}

TEST(Contract, OtherTypeSaysHowToConvert) {
  Contract args("op");
  args.floating("x", kX, {"B", "T", "C"});
  EXPECT_THAT([&] { args.same("w", at::ones({3}, at::kHalf), {"C"}); },
              refuses("w of the dtype of x, Float", "Half", ".to(x.dtype)"));
}

TEST(Contract, OtherDevice) {
  Contract args("op");
  args.floating("x", kX, {"B", "T", "C"});
  EXPECT_THAT([&] { args.same("w", at::ones({3}, at::kMeta), {"C"}); },
              refuses("w on the device of x, cpu", "meta"));
}

TEST(Contract, AbsentOptionalArgumentsPass) {
  Contract args("op");
  args.floating("x", kX, {"B", "T", "C"})
      .same("w", std::optional<at::Tensor>(), {"C"})
      .same("w", std::optional<at::Tensor>(at::Tensor()), {"C"})
      .mask("m", std::nullopt, {"B", "T"})
      .boundaries("cu", std::nullopt)
      .seed(std::nullopt, false);
}

TEST(Contract, PresentOptionalArgumentIsChecked) {
  Contract args("op");
  args.floating("x", kX, {"B", "T", "C"});
  EXPECT_THAT([&] { args.same("w", std::optional<at::Tensor>(at::ones({4})), {"C"}); },
              refuses("w of shape [C]"));
}

TEST(Contract, Mask) {
  Contract args("op");
  args.floating("x", kX, {"B", "T", "C"}).mask("m", at::zeros({2, 5}, at::kBool), {"B", "T"});
  EXPECT_THAT(
      [&] {
        args.mask("m", at::zeros({2, 5}), {"B", "T"});
      },
      refuses("m of dtype bool, true where a position is padding", "Float"));
  EXPECT_THAT(
      [&] {
        args.mask("m", at::zeros({2, 4}, at::kBool), {"B", "T"});
      },
      refuses("T = 5 as in x", "[2, 4]"));
}

TEST(Contract, Boundaries) {
  Contract args("op");
  args.boundaries("cu", at::zeros({1}, at::kInt)).boundaries("cu", at::zeros({4}, at::kLong));
  EXPECT_THAT([&] { args.boundaries("cu", at::zeros({4})); },
              refuses("cu of shape [S + 1] and dtype int32 or int64", "Float"));
  EXPECT_THAT([&] { args.boundaries("cu", at::zeros({2, 2}, at::kInt)); }, refuses("[2, 2]"));
  EXPECT_THAT([&] { args.boundaries("cu", at::zeros({0}, at::kInt)); }, refuses("[0]"));
}

TEST(Contract, Seed) {
  Contract args("op");
  args.seed(at::zeros({}, at::kLong), true);
  EXPECT_THAT([&] { args.seed(std::nullopt, true); }, refuses("a seed", "none"));
  EXPECT_THAT([&] { args.seed(at::zeros({1}, at::kLong), false); }, refuses("0-dim int64", "[1]"));
  EXPECT_THAT([&] { args.seed(at::zeros({}, at::kInt), false); }, refuses("0-dim int64", "Int"));
}

TEST(Contract, Probability) {
  EXPECT_NO_THROW(Contract("op").probability("p", 0.0).probability("p", 0.999));
  for (const double p : {1.0, -0.1, 2.0, std::nan("")}) {
    EXPECT_THAT([p] { Contract("op").probability("p", p); }, refuses("p in [0, 1)"));
  }
}

TEST(Contract, RequireGivesAdvice) {
  EXPECT_THAT([] { Contract("op").require(false, "K > 0", "0", "Take 3."); },
              refuses("K > 0", "found 0", "Take 3."));
}

TEST(Boundaries, AreRead) {
  const at::Tensor values = at::tensor({0, 2, 2, 7}, at::kInt);
  EXPECT_EQ(read_boundaries("op", "cu", values, 7), (std::vector<int64_t>{0, 2, 2, 7}));
  EXPECT_EQ(read_boundaries("op", "cu", at::tensor({0}), 0), std::vector<int64_t>{0});
}

TEST(Boundaries, ReadThroughStrides) {
  const at::Tensor values = at::tensor({0, 9, 2, 9, 7, 9}, at::kLong).slice(0, 0, 6, 2);
  EXPECT_EQ(read_boundaries("op", "cu", values, 7), (std::vector<int64_t>{0, 2, 7}));
}

TEST(Boundaries, BadOnesAreRefused) {
  const auto read = [](std::vector<int64_t> values) {
    return [values] { read_boundaries("op", "cu", at::tensor(values), 7); };
  };
  EXPECT_THAT(read({1, 7}), refuses("cu to start at 0", "first 1"));
  EXPECT_THAT(read({0, 6}), refuses("packed length 7", "last 6"));
  EXPECT_THAT(read({0, 5, 3, 7}), refuses("cu never to decrease", "5 followed by 3 at index 2"));
}

}  // namespace
}  // namespace headloom

#include "headloom/tensor/dispatch.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <type_traits>

namespace headloom {
namespace {

TEST(DispatchFloating, GivesTheType) {
  for (const auto type : {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf}) {
    const auto found = dispatch_floating(type, "op", [](auto tag) {
      return c10::CppTypeToScalarType<typename decltype(tag)::type>::value;
    });
    EXPECT_EQ(found, type);
  }
}

TEST(DispatchFloating, RefusesOthers) {
  EXPECT_THAT([] { dispatch_floating(at::kLong, "op", [](auto) { return 0; }); },
              ::testing::ThrowsMessage<Error>(::testing::StrEq(
                  "op: expected float64, float32, bfloat16 or float16; found Long.")));
}

TEST(DispatchBool, GivesAConstant) {
  for (const bool flag : {true, false}) {
    EXPECT_EQ(dispatch_bool(flag,
                            [](auto constant) {
                              static_assert(std::is_same_v<decltype(constant()), bool>);
                              return bool(decltype(constant)::value);
                            }),
              flag);
  }
}

}  // namespace
}  // namespace headloom

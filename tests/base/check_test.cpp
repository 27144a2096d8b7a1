#include "headloom/base/check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace headloom {
namespace {

using ::testing::StrEq;
using ::testing::ThrowsMessage;

TEST(Check, FailureSaysWhereExpectedAndFound) {
  EXPECT_THAT([] { fail("light_conv", "K > 0", "0"); },
              ThrowsMessage<Error>(StrEq("light_conv: expected K > 0; found 0.")));
}

TEST(Check, AdviceFollows) {
  EXPECT_THAT(
      [] { fail("mixer", "a name", "\"x\"", "Did you mean \"y\"?"); },
      ThrowsMessage<Error>(StrEq("mixer: expected a name; found \"x\". Did you mean \"y\"?")));
}

TEST(Check, TextIsBuiltOnlyOnFailure) {
  int built = 0;
  const auto text = [&built] {
    ++built;
    return std::string("something");
  };
  HEADLOOM_CHECK(true, "here", text(), text());
  EXPECT_EQ(built, 0);
  EXPECT_THROW(HEADLOOM_CHECK(false, "here", text(), text()), Error);
  EXPECT_EQ(built, 2);
}

TEST(Check, CatJoinsAnything) {
  EXPECT_EQ(cat("a", 1, ' ', 2.5, std::string("b")), "a1 2.5b");
}

}  // namespace
}  // namespace headloom

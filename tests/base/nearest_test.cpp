#include "headloom/base/nearest.h"

#include <gtest/gtest.h>

namespace headloom {
namespace {

const std::vector<std::string> kNames{"causal", "kernel_size", "same", "heads"};

TEST(NearestName, FindsOneTypo) {
  EXPECT_EQ(nearest_name("casual", kNames), "causal");
  EXPECT_EQ(nearest_name("kernelsize", kNames), "kernel_size");
  EXPECT_EQ(nearest_name("head", kNames), "heads");
}

TEST(NearestName, ExactNameIsNearest) {
  EXPECT_EQ(nearest_name("same", kNames), "same");
}

TEST(NearestName, NothingWhenNothingIsNear) {
  EXPECT_EQ(nearest_name("zzzzzzzz", kNames), "");
  EXPECT_EQ(nearest_name("heads", {}), "");
}

TEST(NearestName, FirstOfEquallyNear) {
  EXPECT_EQ(nearest_name("cat", {"bat", "rat"}), "bat");
}

TEST(NearestName, EmptyWordTakesNoCandidate) {
  EXPECT_EQ(nearest_name("", kNames), "");
}

TEST(Join, PutsSeparatorsBetween) {
  EXPECT_EQ(join({}), "");
  EXPECT_EQ(join({"a"}), "a");
  EXPECT_EQ(join({"a", "b", "c"}), "a, b, c");
  EXPECT_EQ(join({"a", "b"}, "-"), "a-b");
}

TEST(Join, KeepsEmptyWords) {
  EXPECT_EQ(join({"", "b", ""}), ", b, ");
}

}  // namespace
}  // namespace headloom

#include "headloom/mechanisms/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "headloom/base/check.h"

namespace headloom {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

MixerConfig config_of(int64_t dim, int64_t heads) {
  MixerConfig config;
  config.dim = dim;
  config.heads = heads;
  return config;
}

TEST(Registry, MechanismsAreSortedAndDescribed) {
  const auto all = mechanisms();
  ASSERT_FALSE(all.empty());
  EXPECT_TRUE(std::is_sorted(all.begin(), all.end(),
                             [](const auto* a, const auto* b) { return a->name < b->name; }));
  for (const Mechanism* mechanism : all) {
    EXPECT_FALSE(mechanism->summary.empty()) << mechanism->name;
    EXPECT_FALSE(mechanism->paper.empty()) << mechanism->name;
    EXPECT_EQ(&find_mechanism(mechanism->name), mechanism);
  }
}

TEST(Registry, UnknownNameListsAndSuggests) {
  EXPECT_THAT([] { find_mechanism("dot_prodct"); },
              ThrowsMessage<Error>(AllOf(HasSubstr("a mechanism among"), HasSubstr("dot_product"),
                                         HasSubstr("found \"dot_prodct\""),
                                         HasSubstr("Did you mean \"dot_product\"?"))));
}

TEST(Registry, NameIsTakenOnce) {
  Mechanism again = find_mechanism("dot_product");
  EXPECT_THAT([&] { RegisterMechanism{again}; },
              ThrowsMessage<Error>(HasSubstr("\"dot_product\" twice")));
}

TEST(MakeMixer, WidthIsAMultipleOfTheHeads) {
  for (const auto& sizes : {std::pair{12, 5}, std::pair{0, 1}, std::pair{8, 0}}) {
    const auto make = [&] { make_mixer("dot_product", config_of(sizes.first, sizes.second), {}); };
    EXPECT_THAT(make, ThrowsMessage<Error>(
                          AllOf(HasSubstr("multiple of the head count"),
                                HasSubstr(cat("width ", sizes.first, ", heads ", sizes.second)))));
  }
}

TEST(MakeMixer, OptionsAreRead) {
  const auto mixer = make_mixer("dot_product", config_of(8, 2), {{"bias", false}});
  EXPECT_EQ(mixer->named_parameters().size(), 4);
}

TEST(MakeMixer, UnknownOptionSuggests) {
  EXPECT_THAT(
      [] {
        make_mixer("dot_product", config_of(8, 2), {{"bais", false}});
      },
      ThrowsMessage<Error>(
          AllOf(HasSubstr("mixer dot_product"), HasSubstr("Did you mean \"bias\"?"))));
}

}  // namespace
}  // namespace headloom

#include "headloom/base/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "headloom/base/check.h"

namespace headloom {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

const Options kOptions{{"causal", true},
                       {"heads", int64_t{4}},
                       {"dropout", 0.25},
                       {"padding", std::string("same")},
                       {"kernels", std::vector<int64_t>{3, 7}}};

TEST(Options, PrintAsARecipeWritesThem) {
  EXPECT_EQ(to_string(OptionValue(true)), "true");
  EXPECT_EQ(to_string(OptionValue(int64_t{-3})), "-3");
  EXPECT_EQ(to_string(OptionValue(0.5)), "0.5");
  EXPECT_EQ(to_string(OptionValue(std::string("same"))), "\"same\"");
  EXPECT_EQ(to_string(OptionValue(std::vector<int64_t>{3, 7})), "[3, 7]");
}

TEST(Options, PrintSoThatTheyReadBackAsTheSameType) {
  EXPECT_EQ(to_string(OptionValue(2.0)), "2.0");
  EXPECT_EQ(std::stod(to_string(OptionValue(0.1234567890123))), 0.1234567890123);
}

TEST(OptionReader, ReadsEachType) {
  OptionReader reader("mixer", kOptions);
  EXPECT_TRUE(reader.boolean("causal", false));
  EXPECT_EQ(reader.integer("heads", 1), 4);
  EXPECT_EQ(reader.number("dropout", 0.0), 0.25);
  EXPECT_EQ(reader.text("padding", ""), "same");
  EXPECT_EQ(reader.integers("kernels", {}), (std::vector<int64_t>{3, 7}));
  EXPECT_NO_THROW(reader.done());
}

TEST(OptionReader, FallsBackWhenAbsent) {
  const Options none;
  OptionReader reader("mixer", none);
  EXPECT_FALSE(reader.boolean("causal", false));
  EXPECT_EQ(reader.integer("heads", 8), 8);
  EXPECT_EQ(reader.number("dropout", 0.5), 0.5);
  EXPECT_EQ(reader.choice("padding", "causal", {"same", "causal"}), "causal");
  EXPECT_EQ(reader.integers("kernels", {5}), std::vector<int64_t>{5});
}

TEST(OptionReader, IntegerServesAsNumberAndAsList) {
  OptionReader reader("mixer", kOptions);
  EXPECT_EQ(reader.number("heads", 0.0), 4.0);
  EXPECT_EQ(reader.integers("heads", {}), std::vector<int64_t>{4});
}

TEST(OptionReader, WrongTypeIsRefused) {
  OptionReader reader("mixer light_conv", kOptions);
  EXPECT_THAT([&] { reader.integer("causal", 1); },
              ThrowsMessage<Error>(AllOf(HasSubstr("mixer light_conv"),
                                         HasSubstr("causal to be a whole number"),
                                         HasSubstr("found true"))));
  EXPECT_THAT([&] { reader.integer("dropout", 1); }, ThrowsMessage<Error>(HasSubstr("found 0.25")));
  EXPECT_THAT([&] { reader.number("padding", 1); },
              ThrowsMessage<Error>(HasSubstr("found \"same\"")));
  EXPECT_THROW(reader.boolean("heads", true), Error);
  EXPECT_THROW(reader.text("heads", ""), Error);
  EXPECT_THROW(reader.integers("padding", {}), Error);
}

TEST(OptionReader, ChoiceNamesTheNearest) {
  const Options options{{"padding", std::string("sane")}};
  OptionReader reader("mixer", options);
  EXPECT_THAT(
      [&] {
        reader.choice("padding", "same", {"same", "causal"});
      },
      ThrowsMessage<Error>(AllOf(HasSubstr("one of same, causal"), HasSubstr("\"sane\""),
                                 HasSubstr("Did you mean \"same\"?"))));
}

TEST(OptionReader, UnknownKeyNamesTheNearest) {
  const Options options{{"casual", true}};
  OptionReader reader("mixer", options);
  reader.boolean("causal", false);
  EXPECT_THAT(
      [&] { reader.done(); },
      ThrowsMessage<Error>(AllOf(HasSubstr("options among causal"), HasSubstr("casual = true"),
                                 HasSubstr("Did you mean \"causal\"?"))));
}

TEST(OptionReader, UnknownKeyWhenThereAreNoOptions) {
  const Options options{{"x", int64_t{1}}};
  const OptionReader reader("mixer", options);
  EXPECT_THAT([&] { reader.done(); },
              ThrowsMessage<Error>(AllOf(HasSubstr("expected no options"), HasSubstr("x = 1"))));
}

}  // namespace
}  // namespace headloom

#include "headloom/tasks/listops/generator.h"

#include <set>

#include "tests/tasks/support.h"

namespace headloom::tasks::listops {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

GeneratorConfig short_config() {
  GeneratorConfig config;
  config.min_length = 10;
  config.max_length = 60;
  config.max_args = 5;
  return config;
}

std::vector<Tokens> tokens_of(const Examples& examples) {
  std::vector<Tokens> tokens;
  for (const Example& example : examples) tokens.push_back(example.tokens);
  return tokens;
}

TEST(ListOpsGenerator, KeepsItsPublishedChecksum) {
  EXPECT_EQ(checksum(Generator({}).next(100)), kDefaultChecksum);
}

TEST(ListOpsGenerator, KeepsLengthsInRangeWithoutRepeats) {
  Generator generator(short_config());
  const Examples examples = generator.next(5'000);
  std::set<Tokens> distinct;
  for (const Example& example : examples) {
    EXPECT_GE(example.tokens.size(), 10u);
    EXPECT_LE(example.tokens.size(), 60u);
    distinct.insert(example.tokens);
  }
  EXPECT_EQ(distinct.size(), 5'000u);
  EXPECT_EQ(generator.made(), 5'000);
}

TEST(ListOpsGenerator, IsOneSequenceHoweverItIsAskedFor) {
  const std::vector<Tokens> whole = tokens_of(Generator(short_config()).next(700));
  Generator pieces(short_config());
  std::vector<Tokens> joined;
  for (const int64_t count : {1, 99, 0, 600}) {
    for (const Tokens& tokens : tokens_of(pieces.next(count))) joined.push_back(tokens);
  }
  EXPECT_EQ(joined, whole);
}

TEST(ListOpsGenerator, DiffersBySeed) {
  GeneratorConfig other = short_config();
  other.seed = 2;
  EXPECT_NE(tokens_of(Generator(short_config()).next(20)), tokens_of(Generator(other).next(20)));
}

TEST(ListOpsGenerator, MakesEveryShortExpression) {
  GeneratorConfig config;
  config.min_length = 1;
  config.max_length = 4;
  // Ten digits, and four operators on two digits.
  EXPECT_EQ(Generator(config).next(410).size(), 410u);
}

TEST(ListOpsGenerator, StopsWhenThereAreNoMore) {
  GeneratorConfig config;
  config.min_length = config.max_length = 1;
  EXPECT_THAT(message_of([&] { Generator(config).next(11); }),
              AllOf(HasSubstr("expected 11 distinct expressions of 1 to 1 tokens; found 10 in"),
                    HasSubstr("ask for fewer")));
}

TEST(ListOpsGenerator, StopsWhenLengthsCannotBeReached) {
  GeneratorConfig config;
  config.max_depth = 2;  // at most ten digits
  EXPECT_THAT(message_of([&] { Generator(config).next(1); }),
              AllOf(HasSubstr("1 distinct expressions of 501 to 1999 tokens; found 0 in"),
                    HasSubstr("raise max_args or max_depth")));
}

TEST(ListOpsGenerator, RefusesImpossibleSettings) {
  const auto message = [](const GeneratorConfig& config) {
    return message_of([&] { Generator generator(config); });
  };
  EXPECT_THAT(message({.min_length = 20, .max_length = 10}),
              HasSubstr("found min_length 20, max_length 10"));
  EXPECT_THAT(message({.min_length = 0}), HasSubstr("found min_length 0"));
  EXPECT_THAT(message({.max_depth = 0}), HasSubstr("max_depth between 1 and 1000; found 0"));
  EXPECT_THAT(message({.max_args = 1}), HasSubstr("max_args between 2 and 1000000; found 1"));
}

}  // namespace
}  // namespace headloom::tasks::listops

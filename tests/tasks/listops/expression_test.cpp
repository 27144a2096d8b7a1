#include "headloom/tasks/listops/expression.h"

#include <algorithm>

#include "headloom/tasks/listops/generator.h"
#include "tests/tasks/listops/tree.h"
#include "tests/tasks/support.h"

namespace headloom::tasks::listops {
namespace {

using ::testing::HasSubstr;

int value_of(const std::string& text) {
  return parse(text, "text").value;
}

TEST(ListOpsExpression, FollowsThePublishedSemantics) {
  EXPECT_EQ(value_of("7"), 7);
  EXPECT_EQ(value_of("[MIN 4 2 9 ]"), 2);
  EXPECT_EQ(value_of("[MAX 4 2 9 ]"), 9);
  EXPECT_EQ(value_of("[SM 4 2 9 ]"), 5);
  EXPECT_EQ(value_of("[MED 4 2 9 ]"), 4);
  EXPECT_EQ(value_of("[MED 3 4 ]"), 3) << "an even count rounds down";
  EXPECT_EQ(value_of("[MED 9 1 1 9 ]"), 5);
  EXPECT_EQ(value_of("[MED 0 0 9 9 9 0 ]"), 4);
  EXPECT_EQ(value_of("[MAX 4 [MIN 2 3 [SM 9 9 9 ] ] [MED 8 8 ] ]"), 8);
}

TEST(ListOpsExpression, FixesTheTokenTable) {
  EXPECT_EQ(parse("[MIN 0 9 [MAX 1 1 ] [MED 1 1 ] [SM 1 1 ] ]", "text").tokens,
            (Tokens{11, 1, 10, 12, 2, 2, 15, 13, 2, 2, 15, 14, 2, 2, 15, 15}));
}

TEST(ListOpsExpression, PrintsThePublishedForm) {
  const Tokens tokens = parse("[MAX 4 [SM 1 2 ] ]", "text").tokens;
  EXPECT_EQ(print(tokens), "[MAX 4 [SM 1 2 ] ]");
  EXPECT_EQ(print_tree(tokens), "( ( ( [MAX 4 ) ( ( ( [SM 1 ) 2 ) ] ) ) ] )");
  EXPECT_EQ(print_tree(parse("7", "text").tokens), "7");
}

TEST(ListOpsExpression, GivesBackWhatItPrints) {
  GeneratorConfig config;
  config.min_length = 1;
  config.max_length = 300;
  for (const Example& example : Generator(config).next(2'000)) {
    EXPECT_EQ(parse(print(example.tokens), "text").tokens, example.tokens);
    const std::string tree = print_tree(example.tokens);
    const Example again = parse(tree, "text");
    EXPECT_EQ(again.tokens, example.tokens);
    EXPECT_EQ(print_tree(again.tokens), tree);
    // One pair of parentheses for an operator and one for each of its arguments.
    const auto operators =
        std::count_if(example.tokens.begin(), example.tokens.end(),
                      [](uint8_t token) { return token >= kMin && token <= kSm; });
    const int64_t children = static_cast<int64_t>(example.tokens.size()) - operators - 1;
    EXPECT_EQ(std::count(tree.begin(), tree.end(), '('), operators ? operators + children : 0);
  }
}

TEST(ListOpsExpression, StackMachineAgreesWithRecursion) {
  GeneratorConfig config;
  config.min_length = 20;
  config.max_length = 500;
  config.seed = 11;
  for (const Example& example : Generator(config).next(2'000)) {
    EXPECT_EQ(example.value, Tree(example.tokens).value()) << print(example.tokens);
  }
}

struct Refusal {
  const char* name;
  std::string text;
  std::string message;
};

class ListOpsRefusal : public ::testing::TestWithParam<Refusal> {};

TEST_P(ListOpsRefusal, SaysWhatIsWrong) {
  EXPECT_THAT(message_of([] { parse(GetParam().text, "rows:7"); }),
              ::testing::AllOf(HasSubstr("rows:7: expected"), HasSubstr(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    Texts, ListOpsRefusal,
    ::testing::Values(
        Refusal{"Nothing", "", "found nothing"}, Refusal{"OnlySpaces", "  ", "found nothing"},
        Refusal{"UnknownToken", "[MIN 1 x ]", "found \"x\""},
        Refusal{"TwoDigitNumber", "[MIN 1 12 ]", "found \"12\""},
        Refusal{"NearToken", "[MAXX 1 2 ]", "Did you mean \"[MAX\"?"},
        Refusal{"NotClosed", "[MIN 1 [MAX 2", "found 2 never closed"},
        Refusal{"ClosedTwice", "[MIN 1 2 ] ]", "found \"]\" after its end, at token 5"},
        Refusal{"StartsClosed", "] 1", "found \"]\" before any operator"},
        Refusal{"TwoExpressions", "1 2", "found \"2\" after its end, at token 2"},
        Refusal{"NoArguments", "[SM 1 [MIN ] ]", "found \"[MIN ]\" at token 4"},
        Refusal{"ParenthesisNotClosed", "( ( [MIN 1 ) ]", "found 1 \"(\" without \")\""},
        Refusal{"ParenthesisNotOpened", "[MIN 1 ) ]", "found \")\" without \"(\""}),
    [](const auto& info) { return info.param.name; });

TEST(ListOpsExpression, RefusesTokensThatAreNoText) {
  EXPECT_THAT(message_of([] {
                evaluate({kMin, kUnknown, kClose}, "row");
              }),
              HasSubstr("expected token ids 1 to 15; found 16 at position 1"));
  EXPECT_THAT(message_of([] { evaluate({kPad}, "row"); }), HasSubstr("found 0 at position 0"));
}

TEST(ListOpsExpression, SurvivesDeepNesting) {
  std::string text;
  for (int i = 0; i < 100'000; ++i) text += "[MAX ";
  text += "3";
  for (int i = 0; i < 100'000; ++i) text += " ]";
  const Example example = parse(text, "deep");
  EXPECT_EQ(example.value, 3);
  EXPECT_EQ(parse(print_tree(example.tokens), "deep").tokens, example.tokens);
}

}  // namespace
}  // namespace headloom::tasks::listops

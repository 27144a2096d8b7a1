#include "headloom/report/table.h"

#include <gtest/gtest.h>

#include <cmath>

#include "headloom/report/escape.h"

namespace headloom::report {
namespace {

TEST(RenderText, AlignsWordsLeftAndNumbersRight) {
  const Table table{"Result",
                    {"name", "loss"},
                    {{"short", "0.5 \u00b1 0.1"}, {"a longer name", "12"}},
                    "over 3 seeds"};
  EXPECT_EQ(render_text(table),
            "Result\n"
            "name                loss\n"
            "-------------  ---------\n"
            "short          0.5 \u00b1 0.1\n"
            "a longer name         12\n"
            "over 3 seeds\n");
}

TEST(RenderText, TakesRaggedAndEmptyTables) {
  EXPECT_EQ(render_text({"", {}, {}, ""}), "");
  EXPECT_EQ(render_text({"", {"a"}, {{"x", "y"}, {}, {"z"}}, ""}), "a\n-  -\nx  y\n\nz\n");
  EXPECT_EQ(render_text({"t", {}, {{"1"}, {"20"}}, ""}), "t\n1\n20\n");
}

TEST(RenderText, BreaksALongNoteBetweenWords) {
  const std::string word(60, 'w');
  EXPECT_EQ(render_text({"", {}, {}, word + " a " + word}), word + " a\n" + word + "\n");
}

TEST(NumericColumn, IsOneWhereAtLeastHalfOfTheCellsAre) {
  const Table table{
      "", {"a", "b", "c"}, {{"x1", "baseline", ""}, {"2y", "-0.1", ""}, {"z", "", ""}}, ""};
  EXPECT_FALSE(is_numeric_column(table, 0));
  EXPECT_TRUE(is_numeric_column(table, 1));
  EXPECT_FALSE(is_numeric_column(table, 2));
}

TEST(FormatNumber, RoundsToSignificantDigits) {
  EXPECT_EQ(format_number(0.123456), "0.1235");
  EXPECT_EQ(format_number(-12.3456), "-12.35");
  EXPECT_EQ(format_number(123456.7), "123457");
  EXPECT_EQ(format_number(0.0), "0.000");
  EXPECT_EQ(format_number(1.25e-7, 3), "1.25e-07");
  EXPECT_EQ(format_number(1e20, 3), "1e+20");
  EXPECT_EQ(format_number(std::nan("")), "n/a");
  EXPECT_EQ(format_number(-INFINITY), "n/a");
}

TEST(Escape, ReplacesMarkup) {
  EXPECT_EQ(escape("<a href=\"x\">'&'</a>"),
            "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;");
}

TEST(Escape, KeepsTextOfAllLengths) {
  const std::string text = "tab\tnew\nline \u00e9 \u20ac \U0001F600";
  EXPECT_EQ(escape(text), text);
}

TEST(Escape, ReplacesBytesThatXmlForbids) {
  const std::string bad = "\xEF\xBF\xBD";
  EXPECT_EQ(escape(std::string("a\0b", 3)), "a" + bad + "b");
  EXPECT_EQ(escape("\x1b[0m"), bad + "[0m");
  EXPECT_EQ(escape("\xff"), bad);
  EXPECT_EQ(escape("\xc0\xaf"), bad + bad);                      // overlong
  EXPECT_EQ(escape("\xed\xa0\x80"), bad + bad + bad);            // surrogate
  EXPECT_EQ(escape("\xf4\x90\x80\x80"), bad + bad + bad + bad);  // beyond U+10FFFF
  EXPECT_EQ(escape("cut \xe2\x82"), "cut " + bad + bad);
}

TEST(Characters, AreCountedAndCutWhole) {
  EXPECT_EQ(character_count("a\u20acb"), 3u);
  EXPECT_EQ(first_characters("a\u20acb", 2), "a\u20ac");
  EXPECT_EQ(first_characters("ab", 5), "ab");
}

}  // namespace
}  // namespace headloom::report

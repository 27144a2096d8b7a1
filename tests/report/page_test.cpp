#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "headloom/report/report.h"
#include "tests/report/markup.h"

namespace headloom::report {
namespace {

using testing::HasSubstr;
using testing::Not;

Page example() {
  Page page{"ListOps & more", "4 mechanisms <3 seeds>", {}, {}, {}, {}, {}};
  page.tables.push_back(
      {"Result", {"name", "accuracy"}, {{"<b>", "0.5"}, {"x", "1", "extra"}}, "a note"});
  page.tables.push_back({});
  page.more_tables.push_back({"Below", {}, {{"last"}}, ""});
  page.charts.push_back({"Loss", "step", "nats", {{"one", {{0, 2}, {1, 1}}, {}}}, true});
  page.charts.push_back({});
  page.heat_maps.push_back(
      {"mix <1>", "in", "out", {{0.5, -1.0}, {std::numeric_limits<double>::quiet_NaN(), 0.0}}});
  page.heat_maps.push_back({});
  page.listings.emplace_back("Recipe", "[task]\nname = \"a<b\"\n</pre>");
  return page;
}

TEST(Page, IsWellFormed) {
  EXPECT_EQ(MarkupCheck::problem(render_html(example())), "");
  EXPECT_EQ(MarkupCheck::problem(render_html({})), "");
}

TEST(Page, HasAllItsParts) {
  const std::string html = render_html(example());
  EXPECT_THAT(html, HasSubstr("<h1>ListOps &amp; more</h1>"));
  EXPECT_THAT(html, HasSubstr("4 mechanisms &lt;3 seeds&gt;"));
  EXPECT_THAT(html, HasSubstr("<td>&lt;b&gt;</td><td class=\"number\">0.5</td>"));
  EXPECT_THAT(html, HasSubstr("a note"));
  EXPECT_EQ(count(html, "<svg "), 4u);
  EXPECT_LT(html.rfind("<svg "), html.find("Below")) << "these tables come after the charts";
  EXPECT_EQ(count(html, "<details>"), 1u);
  EXPECT_THAT(html, HasSubstr("name = &quot;a&lt;b&quot;"));
}

TEST(Page, NeedsNothingFromElsewhere) {
  const std::string html = render_html(example());
  for (const char* word : {"http", "//", "<script", "<link", "<img", "url(", "@import", "src="}) {
    EXPECT_THAT(html, Not(HasSubstr(word)));
  }
}

TEST(Page, HoldsTheRulesOfItsChartsOnce) {
  EXPECT_EQ(count(render_html(example()), "<style>"), 1u);
  EXPECT_EQ(count(render_html(example()), ".chart .band{"), 1u);
}

TEST(Page, IsReadableInLightAndDark) {
  EXPECT_THAT(render_html({}), HasSubstr("color-scheme:light dark"));
  EXPECT_EQ(count(render_html({}), "prefers-color-scheme:dark"), 2u);
}

TEST(MarkupCheck, FindsWhatIsBroken) {
  EXPECT_EQ(MarkupCheck::problem("<a b=\"c\"><d/>&amp;</a>"), "");
  for (const char* text : {"<a>", "</a>", "<a><b></a></b>", "<a b=c></a>", "<a>&</a>",
                           "<a b=\"<\"/>", "<a b=\"1\" b=\"2\"/>", "1 < 2", "<a>></a>"}) {
    EXPECT_NE(MarkupCheck::problem(text), "") << text;
  }
}

TEST(Page, HeatMapsScaleBySizeAndTellTheSign) {
  const std::string html = render_html(example());
  EXPECT_THAT(html, HasSubstr("mix &lt;1&gt;"));
  EXPECT_THAT(html, HasSubstr("down: in; across: out"));
  EXPECT_THAT(html, HasSubstr("<title>0, 1: -1.000</title>"));
  EXPECT_THAT(html, HasSubstr("fill-opacity=\"0.50\"><title>0, 0: 0.5000</title>"));
  EXPECT_THAT(html, HasSubstr("fill-opacity=\"0.0\"><title>1, 0: n/a</title>"));
  EXPECT_THAT(html, HasSubstr("largest magnitude 1.000;"));
}

}  // namespace
}  // namespace headloom::report

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <regex>

#include "headloom/base/check.h"
#include "headloom/report/report.h"
#include "tests/report/markup.h"

namespace headloom::report {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

Chart chart_of(std::vector<std::pair<double, double>> points, bool log_y = false) {
  return {"title", "step", "loss", {{"series", std::move(points), {}}}, log_y};
}

// Coordinates of the n-th polyline.
std::vector<std::pair<double, double>> line(const std::string& svg, size_t n = 0) {
  static const std::regex pattern("<polyline class=\"line\" points=\"([^\"]*)\"");
  auto found = std::sregex_iterator(svg.begin(), svg.end(), pattern);
  std::advance(found, n);
  std::istringstream text((*found)[1].str());
  std::vector<std::pair<double, double>> points;
  double x, y;
  char comma;
  while (text >> x >> comma >> y) points.emplace_back(x, y);
  return points;
}

void expect_sound(const std::string& svg) {
  EXPECT_EQ(MarkupCheck::problem(svg), "") << svg;
  EXPECT_EQ(count(svg, "http"), 1u) << "the namespace alone";
  for (const char* word : {"nan", "inf", "<script", "url(", "@import"}) {
    EXPECT_THAT(svg, Not(HasSubstr(word)));
  }
}

TEST(Chart, DrawsALineFromCornerToCorner) {
  const std::string svg = render_svg(chart_of({{0, 0}, {50, 5}, {100, 10}}));
  expect_sound(svg);
  const auto points = line(svg);
  ASSERT_EQ(points.size(), 3u);
  EXPECT_NEAR(points[1].first, (points[0].first + points[2].first) / 2, 0.11);
  EXPECT_NEAR(points[1].second, (points[0].second + points[2].second) / 2, 0.11);
  EXPECT_LT(points[2].second, points[0].second) << "y grows upwards";
  EXPECT_THAT(svg, HasSubstr("title</text>"));
  EXPECT_THAT(svg, HasSubstr("step</text>"));
  EXPECT_THAT(svg, HasSubstr("loss</text>"));
  EXPECT_THAT(svg, HasSubstr("series</text>"));
}

TEST(Chart, StaysInsideItsViewBox) {
  const std::string svg = render_svg(chart_of({{-1e300, -1e308}, {0, 3}, {1e300, 1.7e308}}));
  expect_sound(svg);
  std::smatch box;
  ASSERT_TRUE(std::regex_search(svg, box, std::regex("viewBox=\"0 0 ([0-9.]+) ([0-9.]+)\"")));
  for (const auto& [x, y] : line(svg)) {
    EXPECT_TRUE(x >= 0 && x <= std::stod(box[1]) && y >= 0 && y <= std::stod(box[2]))
        << x << ' ' << y;
  }
}

TEST(Chart, EscapesEveryText) {
  Chart chart{"a<b", "x&y", "\"q\"", {{"</svg><script>", {{0, 1}, {1, 2}}, {}}}, false};
  const std::string svg = render_svg(chart);
  expect_sound(svg);
  EXPECT_THAT(svg, HasSubstr("a&lt;b"));
  EXPECT_THAT(svg, HasSubstr("x&amp;y"));
  EXPECT_THAT(svg, HasSubstr("&lt;/svg&gt;&lt;script&gt;"));
}

TEST(Chart, LeavesOutPointsThatAreNotFiniteAndSaysSo) {
  const std::string svg =
      render_svg(chart_of({{0, 1}, {1, kNan}, {2, kInf}, {kNan, 4}, {4, -kInf}, {5, 2}}));
  expect_sound(svg);
  EXPECT_EQ(line(svg).size(), 2u);
  EXPECT_THAT(svg, HasSubstr("4 points left out: not finite</text>"));
  EXPECT_THAT(render_svg(chart_of({{0, 1}, {1, 2}})), Not(HasSubstr("left out")));
}

TEST(Chart, LeavesOutWhatALogAxisCannotShow) {
  const std::string svg = render_svg(chart_of({{0, 100}, {1, 0}, {2, -5}, {3, 10}, {4, 1}}, true));
  expect_sound(svg);
  const auto points = line(svg);
  ASSERT_EQ(points.size(), 3u);
  EXPECT_NEAR(points[1].second, (points[0].second + points[2].second) / 2, 0.11);
  EXPECT_THAT(svg, HasSubstr("2 points left out: not finite, or not above 0</text>"));
}

TEST(Chart, SaysThatThereIsNothingToShow) {
  for (const Chart& chart : {chart_of({}), chart_of({{0, kNan}}), Chart{}}) {
    const std::string svg = render_svg(chart);
    expect_sound(svg);
    EXPECT_THAT(svg, HasSubstr("no data</text>"));
    EXPECT_THAT(svg, Not(HasSubstr("<polyline")));
  }
}

TEST(Chart, ShowsOnePointAsADot) {
  const std::string svg = render_svg(chart_of({{5, 1e-9}}));
  expect_sound(svg);
  EXPECT_EQ(count(svg, "<circle"), 1u);
  EXPECT_THAT(svg, Not(HasSubstr("<polyline")));
}

TEST(Chart, DrawsIdenticalValuesAcrossTheMiddle) {
  for (const bool log_y : {false, true}) {
    const std::string svg = render_svg(chart_of({{0, 3}, {1, 3}, {2, 3}}, log_y));
    expect_sound(svg);
    for (const auto& [x, y] : line(svg)) EXPECT_EQ(y, line(svg)[0].second);
  }
}

TEST(Chart, ThinsLongSeriesWithoutLosingPeaks) {
  std::vector<std::pair<double, double>> points;
  for (int i = 0; i < 100000; ++i) points.emplace_back(i, i == 54321 ? 9.0 : std::sin(i));
  const std::string svg = render_svg(chart_of(points));
  EXPECT_LT(svg.size(), 60000u);
  const auto drawn = line(svg);
  double top = 1e9, second = 1e9;
  for (const auto& [x, y] : drawn) {
    if (y < top)
      std::swap(top, second = y);
    else
      second = std::min(second, y);
  }
  EXPECT_LT(top + 50, second) << "the peak stands out";
}

TEST(Chart, DrawsABandAroundItsLine) {
  Chart chart = chart_of({{0, 2}, {1, 3}});
  chart.series[0].band = {{1, 3}, {kNan, 5}};
  const std::string svg = render_svg(chart);
  expect_sound(svg);
  EXPECT_EQ(count(svg, "<polygon class=\"band\""), 1u);
}

TEST(Chart, RefusesABandOfAnotherLength) {
  Chart chart = chart_of({{0, 2}, {1, 3}});
  chart.series[0].band = {{1, 3}};
  try {
    render_svg(chart);
    FAIL() << "expected a refusal";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("1 pairs for 2 points"));
  }
}

TEST(Chart, TellsManySeriesApart) {
  Chart chart{"many", "x", "y", {}, false};
  for (int i = 0; i < 20; ++i) {
    chart.series.push_back({"mechanism number " + std::to_string(i), {{0, i}, {1, i}}, {}});
  }
  const std::string svg = render_svg(chart);
  expect_sound(svg);
  std::set<std::string> looks;
  static const std::regex group("<g( class=\"s[0-9]\"[^>]*)>\n<polyline");
  for (auto found = std::sregex_iterator(svg.begin(), svg.end(), group);
       found != std::sregex_iterator(); ++found) {
    looks.insert((*found)[1].str());
  }
  EXPECT_EQ(looks.size(), 20u);
}

TEST(Chart, ShortensLongNamesAndKeepsThemWhole) {
  const std::string name(300, 'w');
  Chart chart{name, name, name, {{name, {{0, 1}, {1, 2}}, {}}}, false};
  const std::string svg = render_svg(chart);
  expect_sound(svg);
  EXPECT_THAT(svg, HasSubstr("<title>" + name + "</title>"));
  EXPECT_THAT(svg, Not(HasSubstr(name + "</text>")));
}

TEST(Chart, FollowsTheColourScheme) {
  EXPECT_THAT(render_svg(chart_of({{0, 1}})), HasSubstr("prefers-color-scheme:dark"));
}

}  // namespace
}  // namespace headloom::report

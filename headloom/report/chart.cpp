#include "headloom/report/chart.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <string_view>

#include "headloom/base/check.h"
#include "headloom/report/axis.h"
#include "headloom/report/escape.h"
#include "headloom/report/svg.h"

namespace headloom::report {
namespace {

// Okabe and Ito's palette, which colour-blind readers can tell apart, in an order of contrast, with
// its yellow and black replaced by what shows on both backgrounds.
struct Colour {
  const char* on_light;
  const char* on_dark;
};
constexpr std::array<Colour, 8> kPalette{{{"#0072b2", "#56a8e8"},
                                          {"#d55e00", "#ff8c42"},
                                          {"#009e73", "#2dc99b"},
                                          {"#b5569a", "#e79ac9"},
                                          {"#b58900", "#f0c04a"},
                                          {"#3d9fd3", "#9bdcff"},
                                          {"#6b4fa0", "#b9a3f0"},
                                          {"#71717a", "#c4c4cc"}}};
// Series beyond the palette repeat its colours in another stroke.
constexpr std::array<const char*, 4> kDashes{"", "7 4", "2 4", "9 3 2 3"};

// Lengths are in units of the view box.
constexpr double kWidth = 640, kPlotHeight = 250, kSide = 16, kLine = 19;
constexpr double kCharacter = 6.8;  // mean advance at the body size, rather wide than narrow
constexpr double kTitleCharacter = 8.6;
constexpr double kSwatch = 22, kLegendGap = 18;
constexpr size_t kFewPoints = 24;  // up to here each point has a dot

struct Sample {
  double x, y, low, high;
};

struct Curve {
  const Series* series;
  std::vector<Sample> samples;
};

std::string shorten(std::string_view text, double width, double character) {
  const auto fits = static_cast<size_t>(std::max(4.0, width / character));
  if (character_count(text) <= fits) return std::string(text);
  return std::string(first_characters(text, fits - 1)) + "\u2026";
}

std::string line_element(std::string_view type, double x1, double y1, double x2, double y2) {
  return cat("<line class=\"", type, "\" x1=\"", svg_number(x1), "\" y1=\"", svg_number(y1),
             "\" x2=\"", svg_number(x2), "\" y2=\"", svg_number(y2), "\"/>\n");
}

std::string series_attributes(size_t index) {
  const std::string_view dash = kDashes[index / kPalette.size() % kDashes.size()];
  std::string text = cat(" class=\"s", index % kPalette.size(), "\"");
  if (!dash.empty()) text += cat(" stroke-dasharray=\"", dash, "\"");
  return text;
}

// What a chart shows of its series, and how many points it cannot show.
struct Visible {
  std::vector<Curve> curves;
  size_t points = 0, left_out = 0;
};

Visible visible_curves(const Chart& chart) {
  const auto shows = [&](double y) { return std::isfinite(y) && (!chart.log_y || y > 0.0); };
  Visible visible;
  for (const Series& series : chart.series) {
    HEADLOOM_CHECK(series.band.empty() || series.band.size() == series.points.size(), "render_svg",
                   "a band of one pair for each point",
                   cat(series.band.size(), " pairs for ", series.points.size(), " points"));
    Curve curve{&series, {}};
    for (size_t i = 0; i < series.points.size(); ++i) {
      const auto [x, y] = series.points[i];
      if (!std::isfinite(x) || !shows(y)) {
        ++visible.left_out;
        continue;
      }
      Sample sample{x, y, y, y};
      if (!series.band.empty() && shows(series.band[i].first)) sample.low = series.band[i].first;
      if (!series.band.empty() && shows(series.band[i].second)) sample.high = series.band[i].second;
      curve.samples.push_back(sample);
    }
    visible.points += curve.samples.size();
    visible.curves.push_back(std::move(curve));
  }
  return visible;
}

// Points on the page; those that share a pixel column are reduced to the first, the extremes and
// the last, which looks the same and keeps a page of long runs small.
std::vector<Sample> thin_out(const std::vector<Sample>& points) {
  std::vector<Sample> kept;
  for (size_t begin = 0; begin < points.size();) {
    size_t end = begin + 1, lowest = begin, highest = begin;
    while (end < points.size() && std::floor(points[end].x) == std::floor(points[begin].x)) {
      if (points[end].y < points[lowest].y) lowest = end;
      if (points[end].y > points[highest].y) highest = end;
      ++end;
    }
    std::array<size_t, 4> indices{begin, lowest, highest, end - 1};
    std::sort(indices.begin(), indices.end());
    const auto last = std::unique(indices.begin(), indices.end());
    for (auto index = indices.begin(); index != last; ++index) kept.push_back(points[*index]);
    begin = end;
  }
  return kept;
}

class Painter {
 public:
  Painter(const Chart& chart, bool stands_alone)
      : chart_(chart),
        stands_alone_(stands_alone),
        visible_(visible_curves(chart)),
        x_(values_of_x(), false, 7, false),
        y_(values_of_y(), chart.log_y, 5, true) {}

  std::string draw() {
    // From top to bottom: each part moves on to where the next one starts.
    std::string parts = title();
    parts += legend();
    place_plot();
    parts += y_label();
    parts += grid();
    for (size_t i = 0; i < visible_.curves.size(); ++i) parts += curve(i);
    parts += labels_below();
    return opening() + parts + "</svg>\n";
  }

 private:
  std::vector<double> values_of_x() const {
    std::vector<double> values;
    for (const Curve& curve : visible_.curves) {
      for (const Sample& sample : curve.samples) values.push_back(sample.x);
    }
    return values;
  }

  std::vector<double> values_of_y() const {
    std::vector<double> values;
    for (const Curve& curve : visible_.curves) {
      for (const Sample& sample : curve.samples) {
        values.insert(values.end(), {sample.y, sample.low, sample.high});
      }
    }
    return values;
  }

  static double widest_label(const Axis& axis) {
    size_t widest = 1;
    for (const Tick& tick : axis.ticks()) widest = std::max(widest, character_count(tick.label));
    return static_cast<double>(widest) * kCharacter;
  }

  void place_plot() {
    top_ += chart_.y_label.empty() ? 14 : kLine + 11;
    bottom_ = top_ + kPlotHeight;
    left_ = kSide + 8 + widest_label(y_);
    right_ = kWidth - kSide - std::max(6.0, widest_label(x_) / 2 - 4);
  }

  double place_x(double value) const { return left_ + x_.position(value) * (right_ - left_); }
  double place_y(double value) const { return bottom_ - y_.position(value) * (bottom_ - top_); }

  std::string opening() const {
    std::string text = "<svg class=\"chart\"";
    if (stands_alone_) text += " xmlns=\"http://www.w3.org/2000/svg\"";
    text += cat(" viewBox=\"0 0 ", svg_number(kWidth), " ", svg_number(height_), "\" role=\"img\"",
                " aria-label=\"", escape(chart_.title), "\">\n");
    if (stands_alone_) text += "<style>" + chart_style() + "</style>\n";
    return text + cat("<rect class=\"paper\" width=\"", svg_number(kWidth), "\" height=\"",
                      svg_number(height_), "\" rx=\"10\"/>\n");
  }

  std::string title() {
    if (chart_.title.empty()) return "";
    top_ += 26;
    return text_element(kSide, top_, " class=\"title\"",
                        shorten(chart_.title, kWidth - 2 * kSide, kTitleCharacter));
  }

  // Entries one after the other, broken into rows.
  std::string legend() {
    std::string text;
    double x = kSide;
    for (size_t i = 0; i < chart_.series.size(); ++i) {
      const std::string& name = chart_.series[i].name;
      if (name.empty()) continue;
      const std::string shown = shorten(name, kWidth - 2 * kSide - kSwatch - 8, kCharacter);
      const double width = kSwatch + 6 + character_count(shown) * kCharacter;
      if (text.empty()) {
        top_ += kLine + 6;
      } else if (x + width > kWidth - kSide) {
        x = kSide;
        top_ += kLine;
      }
      text += cat("<g", series_attributes(i), ">",
                  line_element("line", x, top_ - 4, x + kSwatch, top_ - 4), "<title>", escape(name),
                  "</title>", text_element(x + kSwatch + 6, top_, "", shown), "</g>\n");
      x += width + kLegendGap;
    }
    return text;
  }

  std::string y_label() const {
    if (chart_.y_label.empty()) return "";
    return text_element(kSide, top_ - 13, " class=\"quiet\"",
                        shorten(chart_.y_label, kWidth - 2 * kSide, kCharacter));
  }

  std::string grid() const {
    std::string text;
    for (const double value : y_.minor_ticks()) {
      text += line_element("minor", left_, place_y(value), right_, place_y(value));
    }
    for (const Tick& tick : y_.ticks()) {
      const double y = place_y(tick.value);
      text += line_element("grid", left_, y, right_, y);
      text += text_element(left_ - 8, y + 4, " text-anchor=\"end\"", tick.label);
    }
    for (const Tick& tick : x_.ticks()) {
      const double x = place_x(tick.value);
      text += line_element("grid", x, top_, x, bottom_);
      text += text_element(x, bottom_ + 18, " text-anchor=\"middle\"", tick.label);
    }
    text += line_element("axis", left_, bottom_, right_, bottom_);
    if (visible_.points > 0) return text;
    return text + text_element((left_ + right_) / 2, (top_ + bottom_) / 2,
                               " text-anchor=\"middle\" class=\"quiet\"", "no data");
  }

  std::string curve(size_t index) const {
    const Curve& curve = visible_.curves[index];
    if (curve.samples.empty()) return "";
    std::vector<Sample> points;
    for (const Sample& sample : curve.samples) {
      points.push_back(
          {place_x(sample.x), place_y(sample.y), place_y(sample.low), place_y(sample.high)});
    }
    points = thin_out(points);
    std::string text = cat("<g", series_attributes(index), ">\n");
    if (!curve.series->band.empty()) text += band(points);
    if (points.size() > 1) {
      text += "<polyline class=\"line\" points=\"";
      for (const Sample& point : points)
        text += svg_number(point.x) + "," + svg_number(point.y) + " ";
      text.back() = '"';
      text += "/>\n";
    }
    if (points.size() <= kFewPoints) {
      for (const Sample& point : points) {
        text += cat("<circle class=\"dot\" cx=\"", svg_number(point.x), "\" cy=\"",
                    svg_number(point.y), "\" r=\"", points.size() == 1 ? "4" : "2.6", "\"/>\n");
      }
    }
    return text + "</g>\n";
  }

  static std::string band(const std::vector<Sample>& points) {
    std::string text = "<polygon class=\"band\" points=\"";
    for (const Sample& point : points)
      text += svg_number(point.x) + "," + svg_number(point.high) + " ";
    for (auto point = points.rbegin(); point != points.rend(); ++point) {
      text += svg_number(point->x) + "," + svg_number(point->low) + " ";
    }
    text.back() = '"';
    return text + "/>\n";
  }

  std::string labels_below() {
    std::string text;
    double y = bottom_ + 18;
    if (!chart_.x_label.empty()) {
      y += kLine;
      text += text_element((left_ + right_) / 2, y, " text-anchor=\"middle\" class=\"quiet\"",
                           shorten(chart_.x_label, right_ - left_, kCharacter));
    }
    if (visible_.left_out > 0) {
      y += kLine;
      text +=
          text_element(kSide, y, " class=\"quiet\"",
                       cat(visible_.left_out, visible_.left_out == 1 ? " point" : " points",
                           " left out: not ", chart_.log_y ? "finite, or not above 0" : "finite"));
    }
    height_ = y + 14;
    return text;
  }

  const Chart& chart_;
  const bool stands_alone_;
  const Visible visible_;
  const Axis x_, y_;
  double left_ = 0, right_ = 0, top_ = 0, bottom_ = 0, height_ = 0;
};

std::string scheme(std::string_view text, std::string_view title, std::string_view paper,
                   std::string_view grid, std::string_view minor, std::string_view axis,
                   const char* Colour::*member) {
  std::string rules = cat(".chart text{fill:", text, "}.chart .title{fill:", title,
                          "}.chart .paper{fill:", paper, "}.chart .grid{stroke:", grid,
                          "}.chart .minor{stroke:", minor, "}.chart .axis{stroke:", axis, "}");
  for (size_t i = 0; i < kPalette.size(); ++i) {
    rules += cat(".chart .s", i, "{color:", kPalette[i].*member, "}");
  }
  return rules;
}

}  // namespace

std::string chart_style() {
  return cat(
      ".chart{font:12px system-ui,-apple-system,'Segoe UI',Roboto,Ubuntu,sans-serif;"
      "font-variant-numeric:tabular-nums}"
      ".chart .title{font-size:15px;font-weight:600}.chart .quiet{opacity:.85}"
      ".chart line{stroke-width:1}"
      ".chart .line{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round;"
      "stroke-linecap:round}"
      ".chart .band{fill:currentColor;opacity:.16}.chart .dot{fill:currentColor}",
      scheme("#52525b", "#18181b", "#ffffff", "#e4e4e7", "#f4f4f5", "#a1a1aa", &Colour::on_light),
      "@media (prefers-color-scheme:dark){",
      scheme("#b4b4bd", "#f4f4f5", "#1c1c20", "#34343b", "#27272b", "#71717a", &Colour::on_dark),
      "}");
}

std::string draw_chart(const Chart& chart, bool stands_alone) {
  return Painter(chart, stands_alone).draw();
}

std::string render_svg(const Chart& chart) {
  return draw_chart(chart, /*stands_alone=*/true);
}

}  // namespace headloom::report

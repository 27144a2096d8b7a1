#include "headloom/report/heat_map.h"

#include <algorithm>
#include <cmath>

#include "headloom/base/check.h"
#include "headloom/report/escape.h"
#include "headloom/report/svg.h"

namespace headloom::report {
namespace {

// Lengths are in units of the view box, as in a chart.
constexpr double kWidth = 640, kSide = 16, kLine = 19, kTop = 66;
constexpr double kLargestCell = 28, kRoom = 360;

double largest_magnitude(const HeatMap& map) {
  double largest = 0.0;
  for (const auto& row : map.values) {
    for (const double value : row) {
      if (std::isfinite(value)) largest = std::max(largest, std::abs(value));
    }
  }
  return largest;
}

// A value that is not finite leaves its cell empty.
std::string cell(double x, double y, double side, double value, double largest,
                 const std::string& place) {
  const bool shows = std::isfinite(value) && largest > 0.0;
  return cat("<rect class=\"", value < 0.0 ? "s1" : "s0", "\" fill=\"currentColor\" x=\"", x,
             "\" y=\"", y, "\" width=\"", side, "\" height=\"", side, "\" fill-opacity=\"",
             format_number(shows ? std::abs(value) / largest : 0.0, 2), "\"><title>",
             escape(cat(place, ": ", format_number(value))), "</title></rect>\n");
}

}  // namespace

std::string draw_heat_map(const HeatMap& map) {
  size_t columns = 1;
  for (const auto& row : map.values) columns = std::max(columns, row.size());
  const size_t rows = std::max<size_t>(1, map.values.size());
  const double side = std::min(kLargestCell, kRoom / static_cast<double>(std::max(rows, columns)));
  const double bottom = kTop + side * static_cast<double>(rows), height = bottom + 2 * kLine + 6;
  const double largest = largest_magnitude(map);
  std::string svg =
      cat("<svg class=\"chart\" viewBox=\"0 0 ", kWidth, " ", height,
          "\" role=\"img\" aria-label=\"", escape(map.title), "\">\n<rect class=\"paper\" width=\"",
          kWidth, "\" height=\"", height, "\" rx=\"10\"/>\n");
  svg += text_element(kSide, 26, " class=\"title\"", map.title);
  svg += text_element(kSide, kTop - 12, " class=\"quiet\"",
                      cat("down: ", map.row_label, "; across: ", map.column_label));
  for (size_t r = 0; r < map.values.size(); ++r) {
    for (size_t c = 0; c < map.values[r].size(); ++c) {
      svg += cell(kSide + side * static_cast<double>(c), kTop + side * static_cast<double>(r), side,
                  map.values[r][c], largest, cat(r, ", ", c));
    }
  }
  svg += text_element(
      kSide, bottom + kLine + 2, " class=\"quiet\"",
      cat("largest magnitude ", format_number(largest), "; blue is positive, orange negative"));
  return svg + "</svg>\n";
}

}  // namespace headloom::report

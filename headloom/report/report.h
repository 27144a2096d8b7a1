#pragma once

#include <string>
#include <utility>
#include <vector>

// Self-contained HTML with SVG pictures: opens offline, no script from elsewhere, no fonts to
// fetch.
namespace headloom::report {

struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;  // x, y; sorted by x
};

struct Chart {
  std::string title, x_label, y_label;
  std::vector<Series> series;
  bool log_y = false;
};

struct Table {
  std::string title;
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;
  std::string note;
};

struct Page {
  std::string title, subtitle;
  std::vector<Table> tables;
  std::vector<Chart> charts;
  std::vector<std::pair<std::string, std::string>> listings;  // title, preformatted text
};

// One chart as an SVG element. Points that are not finite are left out.
std::string render_svg(const Chart& chart);
// A whole page.
std::string render_html(const Page& page);
// A table as aligned text for a terminal.
std::string render_text(const Table& table);

}  // namespace headloom::report

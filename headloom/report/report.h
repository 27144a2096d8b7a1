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
  std::vector<std::pair<double, double>> band;    // low, high of each point; or empty: no band
};

struct Chart {
  std::string title, x_label, y_label;
  std::vector<Series> series;
  bool log_y = false;
};

// A matrix as cells of colour.
struct HeatMap {
  std::string title, row_label, column_label;
  std::vector<std::vector<double>> values;  // rows
};

struct Table {
  std::string title;
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;
  std::string note;
};

struct Page {
  std::string title, subtitle;
  std::vector<Table> tables;  // above the charts
  std::vector<Chart> charts;
  std::vector<Table> more_tables;                             // below them
  std::vector<std::pair<std::string, std::string>> listings;  // title, preformatted text
  std::vector<HeatMap> heat_maps;                             // behind the charts
};

// One chart as an SVG document that stands alone, in light or dark as the reader's system asks.
// Points that are not finite, or not above 0 on a log axis, are left out; a note in the picture
// counts them. Error when a band has another length than its points.
std::string render_svg(const Chart& chart);
// A whole page.
std::string render_html(const Page& page);
// A table as aligned text for a terminal, its note broken into lines of at most 100 characters.
// Rows may be shorter or longer than `columns`; without columns all cells are text.
std::string render_text(const Table& table);

// A value rounded to `digits` significant digits or, when it is larger, to a whole number; with an
// exponent only below 1e-4 and from 1e15 on; "n/a" when it is not finite.
std::string format_number(double value, int digits = 4);

}  // namespace headloom::report

#pragma once

#include <string>

#include "headloom/report/report.h"

namespace headloom::report {

// The rules that charts are drawn with, for both colour schemes.
std::string chart_style();

// One chart as an <svg> element for a page that has chart_style(), or with its own style and
// namespace.
std::string draw_chart(const Chart& chart, bool stands_alone);

}  // namespace headloom::report

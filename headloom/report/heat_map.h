#pragma once

#include <string>

#include "headloom/report/report.h"

namespace headloom::report {

// One heat map as an <svg> element for a page that has chart_style().
std::string draw_heat_map(const HeatMap& map);

}  // namespace headloom::report

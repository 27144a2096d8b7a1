#include "headloom/report/svg.h"

#include <cstdio>

#include "headloom/base/check.h"
#include "headloom/report/escape.h"

namespace headloom::report {

std::string svg_number(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.1f", value);
  std::string text = buffer;
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text == "-0" ? "0" : text;
}

std::string text_element(double x, double y, std::string_view attributes, std::string_view text) {
  return cat("<text x=\"", svg_number(x), "\" y=\"", svg_number(y), "\"", attributes, ">",
             escape(text), "</text>\n");
}

}  // namespace headloom::report

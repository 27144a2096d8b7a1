#pragma once

#include <string>
#include <string_view>

// The pieces of pictures that charts and heat maps share.
namespace headloom::report {

// A length in units of the view box: at most one digit behind the point.
std::string svg_number(double value);

// `attributes` begin with a space: " class=\"title\"".
std::string text_element(double x, double y, std::string_view attributes, std::string_view text);

}  // namespace headloom::report

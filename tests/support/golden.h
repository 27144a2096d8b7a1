#pragma once

#include <map>
#include <string>
#include <vector>

#include "tests/support/arguments.h"

// Values that were worked out without headloom, in tests/golden/<file>, with the script that made
// them beside it. A file is a list of cases in words and numbers separated by white space:
//
//   case causal_scaled
//   flag causal 1            options: flag 0/1, number, integer, text
//   float q 2 3              an argument: name, number of axes, sizes, values in row-major order
//   mask m 2 1 3 0 0 1       bool, 1 is true
//   integers cu 1 3 0 4 7    int64
//   grad 2 2 3 ...           gradient of the outputs, in their order
//   expect out 2 2 3 ...     an output by name, or grad_<argument>
namespace headloom::testing {

struct Golden {
  std::string id;
  std::vector<Input> inputs;
  Arguments arguments;  // float64
  std::vector<at::Tensor> grad_outputs;
  std::map<std::string, at::Tensor> expected;
};

std::vector<Golden> read_golden(const std::string& file);

}  // namespace headloom::testing

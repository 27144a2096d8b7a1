#pragma once

#include <string>

#include "headloom/base/options.h"

// Pieces of TOML text. Each reads back to exactly the value it was made from.
namespace headloom::train {

// Always a TOML float, with the fewest digits that read back exactly: 0.001, 2.0, 1e-08, nan.
std::string toml_number(double value);
// A basic string, quoted and escaped.
std::string toml_string(const std::string& value);
// A key, quoted when it is not a bare one.
std::string toml_key(const std::string& key);
std::string toml_value(const OptionValue& value);

}  // namespace headloom::train

#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace headloom::cli {

// What a measurement was made on.
struct Machine {
  std::string processor;
  int64_t cores = 0;
  int64_t threads = 0;  // that torch uses
  int64_t memory_bytes = 0;
  std::string torch_version, headloom_version;
};

// `threads` as a recipe states it: 0 for torch's default.
Machine describe_machine(int64_t threads);

// One line.
std::string to_string(const Machine& machine);

// A command that a shell runs with exactly these words.
std::string shell_line(const std::vector<std::string>& words);

}  // namespace headloom::cli

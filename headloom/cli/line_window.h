#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace headloom::cli {

// Lines that wait to be worked on together.
struct LineWindow {
  int64_t first = 1;  // number of the first line
  std::vector<std::string> lines;
};

// Reads lines from a descriptor (text/lines.h) and hands them to `work` in windows of at most
// `size`, in order. A window is also full when the reader would have to wait for more, so that a
// filter answers what it has been given.
void for_windows(int descriptor, const std::string& where, int64_t size,
                 const std::function<void(const LineWindow&)>& work);

}  // namespace headloom::cli

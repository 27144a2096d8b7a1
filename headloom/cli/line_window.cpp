#include "headloom/cli/line_window.h"

#include <poll.h>

#include "headloom/text/lines.h"

namespace headloom::cli {
namespace {

// Whether a read would return at once, with bytes or the end.
bool is_ready(int descriptor) {
  pollfd request{descriptor, POLLIN, 0};
  return ::poll(&request, 1, 0) != 0;
}

}  // namespace

void for_windows(int descriptor, const std::string& where, int64_t size,
                 const std::function<void(const LineWindow&)>& work) {
  LineWindow window;
  const auto flush = [&] {
    if (window.lines.empty()) return;
    work(window);
    window.first += static_cast<int64_t>(window.lines.size());
    window.lines.clear();
  };
  const text::Source descriptor_source = text::source_of_descriptor(descriptor);
  text::LineReader reader(
      [&](char* buffer, size_t bytes) {
        if (!is_ready(descriptor)) flush();
        return descriptor_source(buffer, bytes);
      },
      where);
  for (std::string line; reader.next(line);) {
    window.lines.push_back(line);
    if (static_cast<int64_t>(window.lines.size()) >= size) flush();
  }
  flush();
}

}  // namespace headloom::cli

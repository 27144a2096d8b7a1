#include "headloom/train/display.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ostream>

#include "headloom/base/check.h"

namespace headloom::train {
namespace {

// Ten updates a second are enough for an eye and cost nothing.
constexpr std::chrono::milliseconds kRefresh(100);

template <class... Values>
std::string print(const char* format, Values... values) {
  char text[96];
  std::snprintf(text, sizeof text, format, values...);
  return text;
}

std::string short_count(double value) {
  if (!(value >= 1e3)) return print("%.0f", value);
  return value >= 1e6 ? print("%.1fM", value / 1e6) : print("%.1fk", value / 1e3);
}

bool is_set(const char* variable) {
  const char* value = std::getenv(variable);
  return value && *value;
}

}  // namespace

std::string format_duration(double seconds) {
  const auto total = std::llround(std::max(seconds, 0.0));
  const auto minutes = total / 60, hours = total / 3600, days = total / 86400;
  if (days > 0) return print("%lldd%02lldh", days, hours % 24);
  if (hours > 0) return print("%lldh%02lldm", hours, minutes % 60);
  if (minutes > 0) return print("%lldm%02llds", minutes, total % 60);
  return print("%llds", total);
}

std::string format_progress(const ProgressLine& line) {
  std::string text =
      cat("step ", line.step, '/', line.steps, print("  loss %.4f", line.loss),
          print("  lr %.2e", line.lr), "  ", short_count(line.tokens_per_second), " tokens/s");
  if (line.seconds_left >= 0.0) text += "  " + format_duration(line.seconds_left) + " left";
  if (!line.validation.empty()) text += "  " + line.validation;
  return text;
}

DisplayOptions detect_display() {
  DisplayOptions options;
  const char* kind = std::getenv("TERM");
  options.terminal = ::isatty(STDERR_FILENO) && kind && std::strcmp(kind, "dumb") != 0;
  options.color = options.terminal && !is_set("NO_COLOR");
  winsize size = {};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
    options.columns = size.ws_col;
  }
  return options;
}

void Display::clear() {
  if (shown_) out_ << "\r\033[K" << std::flush;
  shown_ = false;
}

void Display::add(const std::string& text, const char* style) {
  clear();
  if (!options_.label.empty()) out_ << options_.label << "  ";
  if (options_.color && *style) {
    out_ << style << text << "\033[0m";
  } else {
    out_ << text;
  }
  out_ << '\n' << std::flush;
}

void Display::progress(const ProgressLine& line, bool due) {
  if (options_.quiet) return;
  if (!options_.terminal) {
    if (due) add(format_progress(line), "");
    return;
  }
  const auto now = std::chrono::steady_clock::now();
  if (shown_ && now - last_ < kRefresh) return;
  last_ = now;
  shown_ = true;
  std::string text = options_.label.empty() ? "" : options_.label + "  ";
  text += format_progress(line);
  // A line that wraps could not be rewritten.
  const auto width = static_cast<size_t>(std::max(options_.columns - 1, 1));
  out_ << "\r\033[K" << text.substr(0, width) << std::flush;
}

void Display::note(const std::string& text) {
  if (!options_.quiet) add(text, "\033[1m");
}

void Display::warning(const std::string& text) {
  add("warning: " + text, "\033[33m");
}

}  // namespace headloom::train

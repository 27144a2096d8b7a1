#pragma once

#include <chrono>
#include <cstdint>
#include <iosfwd>
#include <string>

namespace headloom::train {

// What a progress line tells.
struct ProgressLine {
  int64_t step = 0, steps = 0;
  double loss = 0.0, lr = 0.0;
  double tokens_per_second = 0.0;
  double seconds_left = 0.0;  // negative: unknown
  std::string validation;     // of the last validation; may be empty
};

// "step 20/100  loss 1.2346  lr 1.00e-03  12.3k tokens/s  1m05s left  accuracy 0.5000"
std::string format_progress(const ProgressLine& line);
std::string format_duration(double seconds);  // 5s, 1m05s, 2h03m, 3d04h

struct DisplayOptions {
  bool quiet = false;     // warnings only
  bool terminal = false;  // rewrite one line instead of adding lines
  bool color = false;
  int columns = 80;
  std::string label;
};

// Options for standard error: a terminal that is not dumb, in colour unless NO_COLOR is set.
DisplayOptions detect_display();

// Progress for a person. On a terminal one line is rewritten; elsewhere lines are added.
class Display {
 public:
  Display(std::ostream& out, DisplayOptions options) : out_(out), options_(std::move(options)) {}
  ~Display() { clear(); }

  // `due`: whether a line is due where lines are added.
  void progress(const ProgressLine& line, bool due);
  void note(const std::string& text);     // a line that stays
  void warning(const std::string& text);  // the same, also when quiet

 private:
  void clear();
  void add(const std::string& text, const char* style);

  std::ostream& out_;
  DisplayOptions options_;
  bool shown_ = false;  // a rewritable line stands on the terminal
  std::chrono::steady_clock::time_point last_;
};

}  // namespace headloom::train

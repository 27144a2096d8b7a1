#pragma once

#include <string>
#include <vector>

namespace headloom::report {

struct Tick {
  double value;
  std::string label;
};

// One axis: the range that it shows, widened to whole ticks (or to something around a single
// value), and where its ticks are.
class Axis {
 public:
  // Values are finite and, on a log axis, above 0. Without values the axis goes from 0 to 1, a log
  // axis from 1 to 10. `target` is the number of ticks to come near to.
  Axis(const std::vector<double>& values, bool log, int target, bool whole_ticks);

  // Where a value of the range is: 0 at its low end, 1 at its high end.
  double position(double value) const;
  const std::vector<Tick>& ticks() const { return ticks_; }
  // Grid lines without a label, between decades of a short log axis.
  const std::vector<double>& minor_ticks() const { return minor_ticks_; }

 private:
  void place_linear_ticks(int target, bool whole_ticks);
  void place_log_ticks(int target);

  bool log_;
  // Wider than the values, so that high - low is finite for any two of them.
  long double low_ = 0.0L, high_ = 1.0L;  // logarithms on a log axis
  std::vector<Tick> ticks_;
  std::vector<double> minor_ticks_;
};

}  // namespace headloom::report

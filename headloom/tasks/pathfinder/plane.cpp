#include "headloom/tasks/pathfinder/plane.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace headloom::tasks::pathfinder {
namespace {

constexpr double kPi = 3.14159265358979323846;

double lanczos3(double x) {
  if (x == 0.0) return 1.0;
  if (x <= -3.0 || x >= 3.0) return 0.0;
  const double a = kPi * x;
  return 3.0 * std::sin(a) * std::sin(a / 3.0) / (a * a);
}

double to_8_bits(double value) {
  return std::clamp(std::floor(value + 0.5), 0.0, 255.0);
}

void draw_thin_line(Plane& plane, Cell from, Cell to, double value) {
  const int64_t dy = std::abs(to.y - from.y), dx = std::abs(to.x - from.x);
  const int64_t step_y = to.y < from.y ? -1 : 1, step_x = to.x < from.x ? -1 : 1;
  const bool steep = dy >= dx;
  const int64_t major = steep ? dy : dx, minor = steep ? dx : dy;
  int64_t error = 2 * minor - major;
  Cell cell = from;
  for (int64_t i = 0; i <= major; ++i) {
    if (plane.holds(cell)) plane.at(cell.y, cell.x) = value;
    if (error >= 0 && minor > 0) {
      (steep ? cell.x : cell.y) += steep ? step_x : step_y;
      error -= 2 * major;
    }
    error += 2 * minor;
    (steep ? cell.y : cell.x) += steep ? step_y : step_x;
  }
}

}  // namespace

void Plane::raise_to(const Plane& other, Cell corner) {
  const int64_t first_x = std::max<int64_t>(0, -corner.x);
  const int64_t end_x = std::min(other.width, width - corner.x);
  const int64_t end_y = std::min(other.height, height - corner.y);
  for (int64_t y = std::max<int64_t>(0, -corner.y); y < end_y; ++y) {
    for (int64_t x = first_x; x < end_x; ++x) {
      double& value = at(corner.y + y, corner.x + x);
      value = std::max(value, other.at(y, x));
    }
  }
}

void Plane::frame(int64_t thickness, double value) {
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      const int64_t depth = std::min(std::min(y, x), std::min(height - 1 - y, width - 1 - x));
      if (depth < thickness) at(y, x) = value;
    }
  }
}

Offsets disk_offsets(int64_t radius) {
  Offsets offsets;
  for (int64_t y = -radius; y <= radius; ++y) {
    for (int64_t x = -radius; x <= radius; ++x) {
      if (y * y + x * x <= radius * radius) offsets.push_back({y, x});
    }
  }
  return offsets;
}

double dilated_at(const Plane& plane, Cell cell, const Offsets& offsets) {
  double most = 0.0;
  for (const Cell& o : offsets) {
    const Cell near{cell.y + o.y, cell.x + o.x};
    if (plane.holds(near)) most = std::max(most, plane.at(near.y, near.x));
  }
  return most;
}

// From each cell that is not zero to those that see it: few are.
Plane dilate(const Plane& plane, const Offsets& offsets) {
  Plane result(plane.height, plane.width);
  for (int64_t y = 0; y < plane.height; ++y) {
    for (int64_t x = 0; x < plane.width; ++x) {
      const double value = plane.at(y, x);
      if (value <= 0.0) continue;
      for (const Cell& o : offsets) {
        const Cell cell{y - o.y, x - o.x};
        if (!result.holds(cell)) continue;
        double& most = result.at(cell.y, cell.x);
        most = std::max(most, value);
      }
    }
  }
  return result;
}

void draw_line(Plane& plane, Cell from, Cell to, int64_t width, double value) {
  if (width <= 1 || (from.y == to.y && from.x == to.x)) {
    draw_thin_line(plane, from, to, value);
    return;
  }
  const auto dy = static_cast<double>(to.y - from.y), dx = static_cast<double>(to.x - from.x);
  const double length = std::hypot(dy, dx);
  // Even widths reach further to one side, so that a straight line is exactly that wide.
  const double left = static_cast<double>((width - 1) / 2) + 0.5;
  const double right = static_cast<double>(width / 2) + 0.5;
  for (int64_t y = 0; y < plane.height; ++y) {
    for (int64_t x = 0; x < plane.width; ++x) {
      const auto py = static_cast<double>(y - from.y), px = static_cast<double>(x - from.x);
      const double along = (py * dy + px * dx) / length, across = (py * dx - px * dy) / length;
      if (along < -0.5 || along > length + 0.5) continue;
      if (across > -left && across < right) plane.at(y, x) = value;
    }
  }
}

Resizer::Resizer(int64_t from, int64_t to) {
  const double scale = static_cast<double>(from) / static_cast<double>(to);
  const double widen = std::max(scale, 1.0), support = 3.0 * widen;
  for (int64_t target = 0; target < to; ++target) {
    const double centre = (static_cast<double>(target) + 0.5) * scale;
    const auto first = std::max<int64_t>(0, static_cast<int64_t>(centre - support + 0.5));
    const auto end = std::min(from, static_cast<int64_t>(centre + support + 0.5));
    Taps taps{first, {}};
    double sum = 0.0;
    for (int64_t i = first; i < end; ++i) {
      taps.weights.push_back(lanczos3((static_cast<double>(i) - centre + 0.5) / widen));
      sum += taps.weights.back();
    }
    for (double& weight : taps.weights) weight /= sum;
    all_.push_back(std::move(taps));
  }
}

Plane Resizer::resize_rows(const Plane& plane) const {
  Plane result(static_cast<int64_t>(all_.size()), plane.height);
  for (int64_t y = 0; y < plane.height; ++y) {
    for (int64_t x = 0; x < result.height; ++x) {
      const Taps& taps = all_[static_cast<size_t>(x)];
      double sum = 0.0;
      for (size_t i = 0; i < taps.weights.size(); ++i) {
        sum += taps.weights[i] * plane.at(y, taps.first + static_cast<int64_t>(i));
      }
      result.at(x, y) = to_8_bits(sum);
    }
  }
  return result;
}

Plane Resizer::operator()(const Plane& plane) const {
  return resize_rows(resize_rows(plane));
}

}  // namespace headloom::tasks::pathfinder

#include "headloom/report/axis.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

namespace headloom::report {
namespace {

// The smallest of 1, 2, 5, 10 times a power of ten that is not below `value`.
long double nice_step(long double value) {
  const long double power = std::pow(10.0L, std::floor(std::log10(value)));
  for (const int factor : {1, 2, 5}) {
    if (factor * power >= value * (1.0L - 1e-9L)) return factor * power;
  }
  return 10.0L * power;
}

std::string strip_zeros(std::string text) {
  const size_t exponent = text.find('e');
  std::string tail;
  if (exponent != std::string::npos) {
    tail = "e" + std::to_string(std::stoi(text.substr(exponent + 1)));
    text.resize(exponent);
  }
  if (text.find('.') != std::string::npos) {
    text.erase(text.find_last_not_of('0') + 1);
    if (text.back() == '.') text.pop_back();
  }
  return text + tail;
}

std::string print(const char* format, int digits, long double value) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, format, digits, value);
  return buffer;
}

// A label in enough digits to tell values `step` apart: 0.25, 40k, 1.5M, 3e-7.
std::string tick_label(long double value, long double step, long double largest) {
  if (std::abs(value) < step * 1e-6L) return "0";
  const int last_digit = static_cast<int>(std::floor(std::log10(step) + 1e-9L));
  const int first_digit = static_cast<int>(std::floor(std::log10(std::abs(value)) + 1e-9L));
  if (largest < 1e-4L || largest >= 1e15L) {
    return strip_zeros(print("%.*Le", std::clamp(first_digit - last_digit, 0, 15), value));
  }
  struct Unit {
    int exponent;
    const char* name;
  };
  for (const Unit unit : {Unit{12, "T"}, Unit{9, "G"}, Unit{6, "M"}, Unit{3, "k"}}) {
    // 4-digit numbers read better in full.
    if (largest < 1e4L || largest < std::pow(10.0L, unit.exponent)) continue;
    const int digits = std::clamp(unit.exponent - last_digit, 0, 15);
    return strip_zeros(print("%.*Lf", digits, value / std::pow(10.0L, unit.exponent))) + unit.name;
  }
  return strip_zeros(print("%.*Lf", std::clamp(-last_digit, 0, 15), value));
}

}  // namespace

Axis::Axis(const std::vector<double>& values, bool log, int target, bool whole_ticks) : log_(log) {
  if (!values.empty()) {
    const auto [low, high] = std::minmax_element(values.begin(), values.end());
    low_ = log ? std::log10(static_cast<long double>(*low)) : *low;
    high_ = log ? std::log10(static_cast<long double>(*high)) : *high;
    // Below this doubles no longer differ by whole pixels.
    const long double magnitude = std::max(std::abs(low_), std::abs(high_));
    if (high_ - low_ <= magnitude * 1e-12L) {
      const long double margin = log ? 0.5L : magnitude > 0 ? magnitude / 10 : 1.0L;
      low_ -= margin;
      high_ += margin;
    }
  }
  if (log_) {
    place_log_ticks(target);
  } else {
    place_linear_ticks(target, whole_ticks);
  }
}

double Axis::position(double value) const {
  const long double place = log_ ? std::log10(static_cast<long double>(value)) : value;
  return static_cast<double>((place - low_) / (high_ - low_));
}

void Axis::place_linear_ticks(int target, bool whole_ticks) {
  const long double step = nice_step((high_ - low_) / target);
  if (whole_ticks) {
    low_ = std::floor(low_ / step + 1e-9L) * step;
    high_ = std::ceil(high_ / step - 1e-9L) * step;
  }
  const long double largest = std::max(std::abs(low_), std::abs(high_));
  const long double end = high_ / step + 1e-6L;
  for (long double i = std::ceil(low_ / step - 1e-6L); i <= end; ++i) {
    const long double value = i * step;
    if (std::abs(value) > std::numeric_limits<double>::max()) continue;
    ticks_.push_back({static_cast<double>(value), tick_label(value, step, largest)});
  }
}

void Axis::place_log_ticks(int target) {
  // A little air, since the range does not end on ticks.
  const long double air = (high_ - low_) * 0.04L;
  low_ -= air;
  high_ += air;
  const auto stride = static_cast<int>(std::max(1.0L, std::ceil((high_ - low_) / target)));
  const bool dense = high_ - low_ < 2.0L;
  const auto first = static_cast<int>(std::floor(low_));
  for (int decade = first; decade <= high_; ++decade) {
    for (int factor = 1; factor < 10; ++factor) {
      const long double value = factor * std::pow(10.0L, decade);
      const long double place = std::log10(value);
      const bool fits =
          static_cast<double>(value) > 0.0 && std::isfinite(static_cast<double>(value));
      if (place < low_ || place > high_ || !fits) continue;
      const bool major = factor == 1 ? decade % stride == 0 : dense && (factor == 2 || factor == 5);
      if (major) {
        const long double power = std::pow(10.0L, decade);
        ticks_.push_back({static_cast<double>(value), tick_label(value, power, value)});
      } else if (stride == 1) {
        minor_ticks_.push_back(static_cast<double>(value));
      }
    }
  }
  if (ticks_.size() >= 2) return;
  // Less than a factor of about 2: evenly spaced values say more than powers of ten.
  ticks_.clear();
  minor_ticks_.clear();
  const long double low = std::pow(10.0L, low_), high = std::pow(10.0L, high_);
  const long double step = nice_step((high - low) / target);
  for (long double i = std::ceil(low / step); i * step <= high; ++i) {
    const auto value = static_cast<double>(i * step);
    if (value > 0.0 && std::isfinite(value))
      ticks_.push_back({value, tick_label(i * step, step, high)});
  }
}

}  // namespace headloom::report

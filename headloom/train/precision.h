#pragma once

#include <c10/core/Device.h>

#include <string>

namespace headloom::train {

// Autocast on this thread while it lives: "bfloat16" turns it on for the device, "float32" does
// nothing. What was set before comes back, and the cache of cast weights is dropped at the end, for
// an optimizer step makes it stale.
class AutocastGuard {
 public:
  AutocastGuard(const std::string& precision, at::DeviceType device);
  ~AutocastGuard();
  AutocastGuard(const AutocastGuard&) = delete;
  AutocastGuard& operator=(const AutocastGuard&) = delete;

 private:
  bool active_;
  at::DeviceType device_;
  bool was_enabled_ = false;
  at::ScalarType was_dtype_ = at::kFloat;
};

}  // namespace headloom::train

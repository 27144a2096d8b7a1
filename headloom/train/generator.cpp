#include "headloom/train/generator.h"

#include <ATen/Context.h>

#include <algorithm>
#include <mutex>

#include "headloom/base/check.h"

namespace headloom::train {
namespace {

std::vector<at::Device> devices_with(at::Device device) {
  std::vector<at::Device> devices = {at::kCPU};
  if (device.type() != at::kCPU) devices.push_back(device);
  return devices;
}

std::string name_of(at::Device device) {
  return cat("generator.", c10::DeviceTypeName(device.type(), /*lower_case=*/true));
}

}  // namespace

NamedTensors generator_state(at::Device device) {
  NamedTensors state;
  for (at::Device each : devices_with(device)) {
    at::Generator generator = at::globalContext().defaultGenerator(each);
    std::lock_guard<std::mutex> lock(generator.mutex());
    state.emplace_back(name_of(each), generator.get_state());
  }
  return state;
}

void restore_generators(const NamedTensors& state, at::Device device) {
  for (at::Device each : devices_with(device)) {
    const std::string name = name_of(each);
    const auto found = std::find_if(state.begin(), state.end(),
                                    [&](const auto& entry) { return entry.first == name; });
    HEADLOOM_CHECK(found != state.end(), "checkpoint", "the state " + name, "none");
    at::Generator generator = at::globalContext().defaultGenerator(each);
    std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(found->second);
  }
}

}  // namespace headloom::train

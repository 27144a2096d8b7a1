#pragma once

#include <ATen/autocast_mode.h>

#include <optional>

namespace headloom {

// Lives in an operator's autocast wrapper: casts arguments to autocast's lower precision, and keeps
// autocast off for the call below. Sums inside the kernels stay wide all the same.
template <c10::DeviceType device>
class Lowering {
 public:
  at::Tensor operator()(const at::Tensor& tensor) const {
    return at::autocast::cached_cast(type_, tensor, device);
  }
  std::optional<at::Tensor> operator()(const std::optional<at::Tensor>& tensor) const {
    return tensor ? std::optional((*this)(*tensor)) : std::nullopt;
  }

 private:
  const at::ScalarType type_ = at::autocast::get_autocast_dtype(device);
  const c10::impl::ExcludeDispatchKeyGuard off_{
      c10::DispatchKeySet(at::autocast::get_autocast_dispatch_key_from_device_type(device))};
};

// Lives in a backward function: a backward pass inside an autocast region must not lower the sums
// that the kernels keep wide.
class NoLowering {
  const c10::impl::ExcludeDispatchKeyGuard off_{c10::autocast_dispatch_keyset};
};

}  // namespace headloom

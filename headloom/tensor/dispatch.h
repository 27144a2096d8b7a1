#pragma once

#include <ATen/core/Tensor.h>

#include <type_traits>

#include "headloom/base/check.h"
#include "headloom/base/numeric.h"

namespace headloom {

// The dtype of sums over elements of x: float64 for float64, float32 otherwise.
inline at::ScalarType accumulation_type(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// Carries a type to a generic lambda: dispatch_floating(type, op, [&](auto tag) { using T =
// typename decltype(tag)::type; ... }).
template <class T>
struct Type {
  using type = T;
};

// Turns a run-time dtype into a compile-time type.
template <class Body>
decltype(auto) dispatch_floating(at::ScalarType type, const char* op, Body&& body) {
  switch (type) {
    case at::kDouble:
      return body(Type<double>{});
    case at::kFloat:
      return body(Type<float>{});
    case at::kBFloat16:
      return body(Type<at::BFloat16>{});
    case at::kHalf:
      return body(Type<at::Half>{});
    default:
      fail(op, "float64, float32, bfloat16 or float16", cat(type));
  }
}

// The kernels' name for an element type of torch's; both have one layout (base/numeric.h).
template <class T>
using kernel_type = std::conditional_t<std::is_same_v<T, at::BFloat16>, BFloat16,
                                       std::conditional_t<std::is_same_v<T, at::Half>, Half, T>>;

// dispatch_floating() with the kernels' types.
template <class Body>
decltype(auto) dispatch_kernel_type(at::ScalarType type, const char* op, Body&& body) {
  return dispatch_floating(
      type, op, [&](auto tag) { return body(Type<kernel_type<typename decltype(tag)::type>>{}); });
}

// Turns a run-time flag into std::bool_constant.
template <class Body>
decltype(auto) dispatch_bool(bool flag, Body&& body) {
  return flag ? body(std::true_type{}) : body(std::false_type{});
}

}  // namespace headloom

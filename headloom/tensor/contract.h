#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymInt.h>

#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace headloom {

// The contract of one operator call. Each argument states its shape in letters; the first use of a
// letter binds its size and later uses must agree. Sizes are symbolic, so one contract serves the
// kernels and the shape functions that torch.compile runs. All checks come before any allocation.
//
//   Contract args("light_conv");
//   args.floating("x", x, {"B", "T", "C"}).same("weight", weight, {"H", "K"});
//   const int64_t C = args.size("C");
class Contract {
 public:
  explicit Contract(std::string op) : op_(std::move(op)) {}

  // Float64, float32, bfloat16 or float16; fixes dtype and device for the arguments that follow.
  Contract& floating(const char* name, const at::Tensor& tensor,
                     std::initializer_list<const char*> dims);
  // Same dtype and device as the floating() argument.
  Contract& same(const char* name, const at::Tensor& tensor,
                 std::initializer_list<const char*> dims);
  Contract& same(const char* name, const std::optional<at::Tensor>& tensor,
                 std::initializer_list<const char*> dims);
  // Bool, same device.
  Contract& mask(const char* name, const std::optional<at::Tensor>& tensor,
                 std::initializer_list<const char*> dims);
  // Sequence boundaries of a packed batch: int32 or int64 [S + 1] on any device.
  Contract& boundaries(const char* name, const std::optional<at::Tensor>& tensor);
  // A 0-dim int64 tensor on the CPU; required when `needed`.
  Contract& seed(const std::optional<at::Tensor>& tensor, bool needed);

  // Any other condition, in the same form of message.
  Contract& require(bool condition, std::string_view expected, const std::string& found,
                    std::string_view advice = {});
  // 0 <= p < 1
  Contract& probability(const char* name, double p);

  c10::SymInt sym(const std::string& dim) const;
  int64_t size(const std::string& dim) const;  // for kernels, where sizes are known

 private:
  void shape(const char* name, const at::Tensor& tensor, std::initializer_list<const char*> dims);
  void device(const char* name, const at::Tensor& tensor);

  std::string op_;
  std::string first_;
  std::optional<at::ScalarType> dtype_;
  std::optional<at::Device> device_;
  std::map<std::string, c10::SymInt> sizes_;
  std::map<std::string, std::string> owner_;  // which argument bound a letter
};

// Checks cu_seqlens against the packed length T: starts at 0, ends at T, never decreases. Reads the
// values, so it belongs in kernels, not in shape functions. Returns them on the CPU.
std::vector<int64_t> read_boundaries(const std::string& op, const char* name,
                                     const at::Tensor& cu_seqlens, int64_t total);

}  // namespace headloom

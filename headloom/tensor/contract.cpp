#include "headloom/tensor/contract.h"

#include <ATen/ATen.h>

#include "headloom/base/check.h"

namespace headloom {
namespace {

std::string letters(std::initializer_list<const char*> dims) {
  std::string text = "[";
  for (const char* dim : dims) text += cat(text.size() > 1 ? ", " : "", dim);
  return text + "]";
}

bool is_floating(at::ScalarType type) {
  return type == at::kDouble || type == at::kFloat || type == at::kBFloat16 || type == at::kHalf;
}

}  // namespace

void Contract::shape(const char* name, const at::Tensor& tensor,
                     std::initializer_list<const char*> dims) {
  const auto sizes = tensor.sym_sizes();
  HEADLOOM_CHECK(sizes.size() == dims.size(), op_, cat(name, " of shape ", letters(dims)),
                 cat("shape ", sizes));
  size_t axis = 0;
  for (const char* dim : dims) {
    const c10::SymInt& found = sizes[axis++];
    const auto [bound, is_new] = sizes_.try_emplace(dim, found);
    if (is_new) {
      owner_[dim] = name;
      continue;
    }
    HEADLOOM_CHECK(bound->second == found, op_,
                   cat(name, " of shape ", letters(dims), " with ", dim, " = ", bound->second,
                       " as in ", owner_[dim]),
                   cat("shape ", sizes));
  }
}

void Contract::device(const char* name, const at::Tensor& tensor) {
  HEADLOOM_CHECK(!device_ || tensor.device() == *device_, op_,
                 cat(name, " on the device of ", first_, ", ", *device_), cat(tensor.device()));
}

Contract& Contract::floating(const char* name, const at::Tensor& tensor,
                             std::initializer_list<const char*> dims) {
  HEADLOOM_CHECK(tensor.defined(), op_, cat("a tensor for ", name), "none");
  HEADLOOM_CHECK(is_floating(tensor.scalar_type()), op_,
                 cat(name, " of dtype float64, float32, bfloat16 or float16"),
                 cat(tensor.scalar_type()));
  first_ = name;
  dtype_ = tensor.scalar_type();
  device_ = tensor.device();
  shape(name, tensor, dims);
  return *this;
}

Contract& Contract::same(const char* name, const at::Tensor& tensor,
                         std::initializer_list<const char*> dims) {
  HEADLOOM_CHECK(tensor.defined(), op_, cat("a tensor for ", name), "none");
  HEADLOOM_CHECK(tensor.scalar_type() == *dtype_, op_,
                 cat(name, " of the dtype of ", first_, ", ", *dtype_), cat(tensor.scalar_type()),
                 cat("Convert it with .to(", first_, ".dtype)."));
  device(name, tensor);
  shape(name, tensor, dims);
  return *this;
}

Contract& Contract::same(const char* name, const std::optional<at::Tensor>& tensor,
                         std::initializer_list<const char*> dims) {
  return tensor && tensor->defined() ? same(name, *tensor, dims) : *this;
}

Contract& Contract::mask(const char* name, const std::optional<at::Tensor>& tensor,
                         std::initializer_list<const char*> dims) {
  if (!tensor || !tensor->defined()) return *this;
  HEADLOOM_CHECK(tensor->scalar_type() == at::kBool, op_,
                 cat(name, " of dtype bool, true where a position is padding"),
                 cat(tensor->scalar_type()));
  device(name, *tensor);
  shape(name, *tensor, dims);
  return *this;
}

Contract& Contract::boundaries(const char* name, const std::optional<at::Tensor>& tensor) {
  if (!tensor || !tensor->defined()) return *this;
  const bool integral = tensor->scalar_type() == at::kInt || tensor->scalar_type() == at::kLong;
  HEADLOOM_CHECK(integral && tensor->dim() == 1 && tensor->sym_size(0) >= 1, op_,
                 cat(name, " of shape [S + 1] and dtype int32 or int64"),
                 cat("shape ", tensor->sym_sizes(), ", ", tensor->scalar_type()));
  return *this;
}

Contract& Contract::seed(const std::optional<at::Tensor>& tensor, bool needed) {
  const bool given = tensor && tensor->defined();
  HEADLOOM_CHECK(given || !needed, op_, "a seed, because a dropout probability is above 0", "none",
                 "Pass a 0-dim int64 tensor, e.g. torch.randint(2**62, ()).");
  if (given) {
    HEADLOOM_CHECK(tensor->scalar_type() == at::kLong && tensor->dim() == 0, op_,
                   "seed to be a 0-dim int64 tensor",
                   cat("shape ", tensor->sym_sizes(), ", ", tensor->scalar_type()));
  }
  return *this;
}

Contract& Contract::require(bool condition, std::string_view expected, const std::string& found,
                            std::string_view advice) {
  HEADLOOM_CHECK(condition, op_, expected, found, advice);
  return *this;
}

Contract& Contract::probability(const char* name, double p) {
  return require(p >= 0.0 && p < 1.0, cat(name, " in [0, 1)"), cat(p));
}

c10::SymInt Contract::sym(const std::string& dim) const {
  return sizes_.at(dim);
}

int64_t Contract::size(const std::string& dim) const {
  return sizes_.at(dim).expect_int();
}

std::vector<int64_t> read_boundaries(const std::string& op, const char* name,
                                     const at::Tensor& cu_seqlens, int64_t total) {
  const at::Tensor values = cu_seqlens.to(at::kCPU, at::kLong).contiguous();
  const int64_t* begin = values.const_data_ptr<int64_t>();
  std::vector<int64_t> bounds(begin, begin + values.numel());
  HEADLOOM_CHECK(bounds.front() == 0 && bounds.back() == total, op,
                 cat(name, " to start at 0 and end at the packed length ", total),
                 cat("first ", bounds.front(), ", last ", bounds.back()));
  for (size_t i = 1; i < bounds.size(); ++i) {
    HEADLOOM_CHECK(bounds[i] >= bounds[i - 1], op, cat(name, " never to decrease"),
                   cat(bounds[i - 1], " followed by ", bounds[i], " at index ", i));
  }
  return bounds;
}

}  // namespace headloom

#include "tests/support/arguments.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cstdlib>

#include "headloom/base/check.h"

namespace headloom::testing {
namespace {

using at::Tensor;

Input argument(std::string name, Kind kind, std::vector<int64_t> shape) {
  Input input;
  input.name = std::move(name);
  input.kind = kind;
  input.shape = std::move(shape);
  input.differentiable = kind == Kind::kFloating;
  return input;
}

// FNV-1a: the same on every machine, unlike std::hash.
uint64_t hash(const std::string& text) {
  uint64_t value = 1469598103934665603u;
  for (const char letter : text) {
    value = (value ^ static_cast<unsigned char>(letter)) * 1099511628211u;
  }
  return value;
}

template <class T>
const T* option(const Options& options, const std::string& name) {
  const auto found = options.find(name);
  return found == options.end() ? nullptr : std::get_if<T>(&found->second);
}

template <class Change>
Arguments mapped(const Arguments& arguments, Change change) {
  Arguments result = arguments;
  for (auto& [name, tensor] : result.tensors) tensor = change(tensor);
  return result;
}

}  // namespace

Input Input::padded(std::string mask) const {
  Input input = *this;
  input.padded_by = std::move(mask);
  return input;
}

Input Input::packed(std::string boundaries) const {
  Input input = *this;
  input.packed_by = std::move(boundaries);
  return input;
}

Input Input::fixed() const {
  Input input = *this;
  input.differentiable = false;
  return input;
}

Input Input::filled(std::function<Tensor()> with) const {
  Input input = *this;
  input.values = std::move(with);
  return input;
}

Input plain(std::string name, std::vector<int64_t> shape) {
  return argument(std::move(name), Kind::kFloating, std::move(shape));
}

Input tokens(std::string name, std::vector<int64_t> shape, int64_t time) {
  Input input = plain(std::move(name), std::move(shape));
  input.time = time;
  return input;
}

Input padding(std::string name, std::vector<std::string> rows) {
  const auto length = static_cast<int64_t>(rows.empty() ? 0 : rows[0].size());
  Input input = argument(std::move(name), Kind::kMask, {static_cast<int64_t>(rows.size()), length});
  input.time = 1;
  input.values = [rows, shape = input.shape] {
    const Tensor mask = at::zeros(shape, at::kBool);
    for (size_t b = 0; b < rows.size(); ++b) {
      for (size_t t = 0; t < rows[b].size(); ++t) {
        if (rows[b][t] == 'x') mask[static_cast<int64_t>(b)][static_cast<int64_t>(t)].fill_(true);
      }
    }
    return mask;
  };
  return input;
}

Input boundaries(std::string name, std::vector<int64_t> values) {
  Input input = argument(std::move(name), Kind::kBoundaries, {static_cast<int64_t>(values.size())});
  input.values = [values] { return at::tensor(values, at::kLong); };
  return input;
}

Input seed(int64_t value, std::string name) {
  Input input = argument(std::move(name), Kind::kSeed, {});
  input.values = [value] { return at::scalar_tensor(value, at::kLong); };
  return input;
}

const Tensor* Arguments::find(const std::string& name) const {
  for (const auto& [known, tensor] : tensors) {
    if (known == name) return &tensor;
  }
  return nullptr;
}

const Tensor& Arguments::operator[](const std::string& name) const {
  const Tensor* tensor = find(name);
  HEADLOOM_CHECK(tensor, "conformance case", cat("an argument named ", name), "none");
  return *tensor;
}

std::optional<Tensor> Arguments::optional(const std::string& name) const {
  const Tensor* tensor = find(name);
  return tensor ? std::optional<Tensor>(*tensor) : std::nullopt;
}

Tensor Arguments::or_undefined(const std::string& name) const {
  const Tensor* tensor = find(name);
  return tensor ? *tensor : Tensor();
}

bool Arguments::flag(const std::string& name, bool fallback) const {
  const bool* value = option<bool>(options, name);
  return value ? *value : fallback;
}

std::optional<double> Arguments::optional_number(const std::string& name) const {
  const double* value = option<double>(options, name);
  return value ? std::optional<double>(*value) : std::nullopt;
}

double Arguments::number(const std::string& name, double fallback) const {
  return optional_number(name).value_or(fallback);
}

int64_t Arguments::integer(const std::string& name, int64_t fallback) const {
  const int64_t* value = option<int64_t>(options, name);
  return value ? *value : fallback;
}

std::string Arguments::text(const std::string& name, const std::string& fallback) const {
  const std::string* value = option<std::string>(options, name);
  return value ? *value : fallback;
}

void Arguments::set(const std::string& name, Tensor tensor) {
  for (auto& [known, old] : tensors) {
    if (known == name) {
      old = std::move(tensor);
      return;
    }
  }
  tensors.emplace_back(name, std::move(tensor));
}

void Arguments::erase(const std::string& name) {
  std::erase_if(tensors, [&](const auto& entry) { return entry.first == name; });
}

at::Device test_device() {
  const char* name = std::getenv("HEADLOOM_TEST_DEVICE");
  return at::Device(name ? name : "cpu");
}

Tensor normal(const std::string& name, at::IntArrayRef shape) {
  return at::randn(shape, at::detail::createCPUGenerator(hash(name)), at::kDouble);
}

Arguments make_arguments(const std::vector<Input>& inputs, const Options& options,
                         const std::string& salt, at::ScalarType type) {
  Arguments arguments;
  arguments.options = options;
  for (const Input& input : inputs) {
    const Tensor values =
        input.values ? input.values() : normal(salt + "/" + input.name, input.shape);
    arguments.tensors.emplace_back(input.name, values);
  }
  return on_device(in_type(arguments, type), test_device());
}

Arguments in_type(const Arguments& arguments, at::ScalarType type) {
  return mapped(arguments, [type](const Tensor& tensor) {
    return tensor.is_floating_point() ? tensor.detach().to(type) : tensor;
  });
}

// A seed stays on the CPU, where every operator takes it; a shape function gets all on meta.
Arguments on_device(const Arguments& arguments, at::Device device) {
  return mapped(arguments, [device](const Tensor& tensor) {
    return tensor.dim() == 0 && !device.is_meta() ? tensor : tensor.to(device);
  });
}

}  // namespace headloom::testing

#include "headloom/train/safetensors.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <bit>
#include <numeric>

#include "headloom/base/check.h"
#include "headloom/train/safetensors_header.h"

namespace headloom::train {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are written as they lie");

constexpr size_t kLengthBytes = sizeof(uint64_t);
constexpr size_t kAlignment = 8;

// Tensor numbers by falling element size, otherwise as given.
std::vector<size_t> data_order(const NamedTensors& tensors) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return tensors[a].second.element_size() > tensors[b].second.element_size();
  });
  return order;
}

void check_tensors(const std::string& path, const NamedTensors& tensors) {
  for (const auto& [name, tensor] : tensors) {
    HEADLOOM_CHECK(tensor.defined() && tensor.layout() == at::kStrided, path,
                   cat("dense values in tensor ", in_quotes(name)),
                   tensor.defined() ? c10::str(tensor.layout()) : std::string("none"));
    dtype_name(path, name, tensor.scalar_type());
  }
}

void check_booleans(const std::string& path, const std::string& name, const uint8_t* data,
                    size_t size) {
  const uint8_t* wrong = std::find_if(data, data + size, [](uint8_t value) { return value > 1; });
  HEADLOOM_CHECK(wrong == data + size, path, cat("0 and 1 in BOOL tensor ", in_quotes(name)),
                 cat(static_cast<int>(*wrong), " at element ", wrong - data));
}

}  // namespace

FileSum write_safetensors(const std::string& path, const NamedTensors& tensors,
                          const std::map<std::string, std::string>& metadata) {
  check_tensors(path, tensors);
  const std::vector<size_t> order = data_order(tensors);
  SafetensorsHeader header{std::vector<TensorEntry>(tensors.size()), metadata};
  uint64_t position = 0;
  for (size_t i : order) {
    const auto& [name, tensor] = tensors[i];
    const uint64_t end = position + tensor.numel() * tensor.element_size();
    header.entries[i] = {name, tensor.scalar_type(), tensor.sizes().vec(), position, end};
    position = end;
  }
  std::string text = format_header(path, header);
  text.resize((text.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');
  HEADLOOM_CHECK(text.size() <= kMaxHeaderBytes, path,
                 cat("a header of at most ", kMaxHeaderBytes, " bytes"),
                 cat(text.size(), " bytes for ", tensors.size(), " tensors"));

  OutputFile file(path);
  const uint64_t length = text.size();
  file.write(&length, kLengthBytes);
  file.write(text.data(), text.size());
  for (size_t i : order) {
    const at::Tensor tensor = tensors[i].second.detach().to(at::kCPU).resolve_neg().contiguous();
    file.write(tensor.const_data_ptr(), tensor.nbytes());
  }
  return file.commit();
}

SafetensorsFile read_safetensors(const std::string& path) {
  const InputFile file(path);
  HEADLOOM_CHECK(file.size() >= kLengthBytes, path, "a safetensors file of at least 8 bytes",
                 cat(file.size(), " bytes"));
  uint64_t length = 0;
  file.read(&length, kLengthBytes, 0);
  const uint64_t longest = std::min(kMaxHeaderBytes, file.size() - kLengthBytes);
  HEADLOOM_CHECK(length <= longest, path, cat("a header of at most ", longest, " bytes"),
                 cat("one of ", length, " bytes"), "The file is cut short, or not safetensors.");
  std::string text(length, '\0');
  file.read(text.data(), length, kLengthBytes);
  const uint64_t data_start = kLengthBytes + length;
  SafetensorsHeader header = parse_header(path, text, file.size() - data_start);

  SafetensorsFile result;
  result.metadata = std::move(header.metadata);
  for (const TensorEntry& entry : header.entries) {
    at::Tensor tensor = at::empty(entry.shape, at::TensorOptions(entry.dtype));
    file.read(tensor.mutable_data_ptr(), entry.bytes(), data_start + entry.begin);
    if (entry.dtype == at::kBool) {
      check_booleans(path, entry.name, static_cast<const uint8_t*>(tensor.const_data_ptr()),
                     entry.bytes());
    }
    result.tensors.emplace_back(entry.name, tensor);
  }
  return result;
}

}  // namespace headloom::train

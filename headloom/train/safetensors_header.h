#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

// The JSON header of a safetensors file, without the file.
namespace headloom::train {

inline constexpr uint64_t kMaxHeaderBytes = 100'000'000;

struct TensorEntry {
  std::string name;
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes after the header

  uint64_t bytes() const { return end - begin; }
};

struct SafetensorsHeader {
  std::vector<TensorEntry> entries;
  std::map<std::string, std::string> metadata;
};

// Checks everything that read_safetensors() promises to check, given that the header is followed by
// `data_bytes` bytes. `path` is for messages.
SafetensorsHeader parse_header(const std::string& path, std::string_view text, uint64_t data_bytes);

// Without padding. Names and metadata must be UTF-8.
std::string format_header(const std::string& path, const SafetensorsHeader& header);

// The format's name of a dtype ("BF16"), or Error naming the tensor.
std::string_view dtype_name(const std::string& path, const std::string& tensor,
                            at::ScalarType dtype);

// A name as messages show it: in quotes, escaped, not longer than a line.
std::string in_quotes(std::string_view name);

}  // namespace headloom::train

#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace headloom::train {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

struct SafetensorsFile {
  NamedTensors tensors;  // in file order, on the CPU
  std::map<std::string, std::string> metadata;
};

// The safetensors format. Writing: header padded to 8 bytes, tensors contiguous, little-endian, in
// the order given; the file is complete and synced to disk when the call returns. Names must be
// unique.
void write_safetensors(const std::string& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata = {});

// Strict: refuses with file, what was expected and what was found a header that is not an object,
// is larger than 100 MB or than the file, has duplicate keys, an unknown dtype, a shape whose size
// overflows, spans that are out of order, overlap, leave holes or do not fill the file, or metadata
// that is not string to string.
SafetensorsFile read_safetensors(const std::string& path);

}  // namespace headloom::train

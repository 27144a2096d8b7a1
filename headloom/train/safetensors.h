#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "headloom/train/files.h"

namespace headloom::train {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

struct SafetensorsFile {
  NamedTensors tensors;  // in the order of the header, on the CPU
  std::map<std::string, std::string> metadata;
};

// The safetensors format, little-endian, header padded to 8 bytes. Dtypes: F64, F32, F16, BF16,
// I64, I32, I16, I8, U8, BOOL; others are refused. Names must be unique and UTF-8.

// The header lists the tensors in the order given; their data goes from the widest element type to
// the narrowest, so that all of it is aligned for readers that map the file. The file is written
// as "<path>.tmp" and is complete and synced to disk when the call returns. Returns its size and
// CRC-32.
FileSum write_safetensors(const std::string& path, const NamedTensors& tensors,
                          const std::map<std::string, std::string>& metadata = {});

// Strict: refuses with file, what was expected and what was found a header that is not an object,
// is larger than 100 MB or than the file, has duplicate keys or unknown fields, an unknown dtype,
// more than 64 dimensions, a shape whose size overflows, spans that run backwards, overlap, leave
// holes or do not fill the file, metadata that is not string to string, or a BOOL other than 0 and
// 1. Tensors may be described in any order, as the format allows.
SafetensorsFile read_safetensors(const std::string& path);

}  // namespace headloom::train

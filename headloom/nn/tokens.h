#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

// What every model of this folder asks of its configuration and of its tokens. `where` starts the
// messages.
namespace headloom::nn {

void check_positive(const char* where, const char* key, int64_t value);
void check_probability(const char* where, const char* key, double value);
// Names the nearest of the allowed words.
void check_choice(const char* where, const char* key, const std::string& value,
                  const std::vector<std::string>& allowed);

// tokens [B, T] int64 with ids in [0, vocabulary); the ids are read on the processor only, because
// elsewhere that would wait for the device.
void check_tokens(const char* where, const at::Tensor& tokens, int64_t vocabulary);
void check_length(const char* where, int64_t longest, int64_t max_length, const std::string& found);

// Vaswani et al. (2017), section 3.5: PE(t, 2i) = sin(t / 10000^(2i / C)), PE(t, 2i + 1) = the
// cosine of the same angle. In float64, then rounded once. -> [max_length, C]
at::Tensor sinusoidal_table(int64_t max_length, int64_t dim);

}  // namespace headloom::nn

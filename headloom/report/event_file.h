#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

// TensorBoard's event files: records of TensorFlow's framing, each an `Event` message.
namespace headloom::report {

struct Scalar {
  std::string tag;
  int64_t step;
  double time;  // seconds since 1970
  double value;
};

// The bytes of an event file that holds the scalars in the order given.
std::string render_events(const std::vector<Scalar>& scalars);

// CRC-32C (Castagnoli; RFC 3720, appendix B.4) as records carry it: rotated and shifted, because a
// sum over data that holds its own sum says little.
uint32_t masked_crc32c(std::string_view bytes);

}  // namespace headloom::report

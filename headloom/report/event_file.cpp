#include "headloom/report/event_file.h"

#include <array>
#include <cstring>

namespace headloom::report {
namespace {

std::array<uint32_t, 256> crc_table() {
  constexpr uint32_t kReversedPolynomial = 0x82f63b78;
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < table.size(); ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) {
      value = value >> 1 ^ (value & 1 ? kReversedPolynomial : 0);
    }
    table[i] = value;
  }
  return table;
}

template <class Value>
std::string little_endian(Value value) {
  std::string bytes;
  for (size_t i = 0; i < sizeof value; ++i) bytes += static_cast<char>(value >> 8 * i & 0xff);
  return bytes;
}

std::string framed(const std::string& message) {
  const std::string length = little_endian(static_cast<uint64_t>(message.size()));
  return length + little_endian(masked_crc32c(length)) + message +
         little_endian(masked_crc32c(message));
}

// Protocol buffers: the key of a field is its number and the kind of what follows.
enum Wire { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}

std::string key(uint64_t field, Wire wire) {
  return varint(field << 3 | wire);
}

std::string bytes_field(uint64_t field, const std::string& bytes) {
  return key(field, kBytes) + varint(bytes.size()) + bytes;
}

template <class Bits, class Value>
std::string fixed_field(uint64_t field, Wire wire, Value value) {
  static_assert(sizeof(Bits) == sizeof(Value));
  Bits bits;
  std::memcpy(&bits, &value, sizeof bits);
  return key(field, wire) + little_endian(bits);
}

std::string event(double time, const std::string& content) {
  return framed(fixed_field<uint64_t>(1, kFixed64, time) + content);
}

std::string scalar_event(const Scalar& scalar) {
  const std::string value = bytes_field(1, scalar.tag) +
                            fixed_field<uint32_t>(2, kFixed32, static_cast<float>(scalar.value));
  return event(scalar.time, key(2, kVarint) + varint(static_cast<uint64_t>(scalar.step)) +
                                bytes_field(5, bytes_field(1, value)));
}

}  // namespace

uint32_t masked_crc32c(std::string_view bytes) {
  static const std::array<uint32_t, 256> table = crc_table();
  uint32_t crc = 0xffffffff;
  for (const char byte : bytes) {
    crc = table[(crc ^ static_cast<unsigned char>(byte)) & 0xff] ^ crc >> 8;
  }
  crc = ~crc;
  return (crc >> 15 | crc << 17) + 0xa282ead8;
}

std::string render_events(const std::vector<Scalar>& scalars) {
  const double begin = scalars.empty() ? 0.0 : scalars.front().time;
  std::string file = event(begin, bytes_field(3, "brain.Event:2"));
  for (const Scalar& scalar : scalars) file += scalar_event(scalar);
  return file;
}

}  // namespace headloom::report

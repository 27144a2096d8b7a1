#include "headloom/report/event_file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <optional>

namespace headloom::report {
namespace {

template <class Value>
Value read(std::string_view bytes) {
  Value value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

// The fields of a message by number: numbers as their bits, the rest as bytes.
struct Fields {
  std::map<uint64_t, uint64_t> numbers;
  std::map<uint64_t, std::string> bytes;
};

uint64_t take_varint(std::string_view& bytes) {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<unsigned char>(bytes.front());
    bytes.remove_prefix(1);
    value |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return value;
  }
}

Fields parse(std::string_view message) {
  Fields fields;
  while (!message.empty()) {
    const uint64_t key = take_varint(message), number = key >> 3, wire = key & 7;
    if (wire == 0) {
      fields.numbers[number] = take_varint(message);
      continue;
    }
    const size_t size = wire == 1 ? 8 : wire == 5 ? 4 : take_varint(message);
    const std::string_view value = message.substr(0, size);
    message.remove_prefix(size);
    if (wire == 1) fields.numbers[number] = read<uint64_t>(value);
    if (wire == 5) fields.numbers[number] = read<uint32_t>(value);
    if (wire == 2) fields.bytes[number] = value;
  }
  return fields;
}

// The messages of a file whose sums are right.
std::optional<std::vector<std::string>> records(std::string_view file) {
  std::vector<std::string> found;
  while (!file.empty()) {
    if (file.size() < 16) return std::nullopt;
    const auto size = read<uint64_t>(file);
    if (file.size() < 16 + size) return std::nullopt;
    const std::string_view length = file.substr(0, 8), message = file.substr(12, size);
    if (read<uint32_t>(file.substr(8)) != masked_crc32c(length)) return std::nullopt;
    if (read<uint32_t>(file.substr(12 + size)) != masked_crc32c(message)) return std::nullopt;
    found.emplace_back(message);
    file.remove_prefix(16 + size);
  }
  return found;
}

double as_double(uint64_t bits) {
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

float as_float(uint64_t bits) {
  const auto low = static_cast<uint32_t>(bits);
  float value;
  std::memcpy(&value, &low, sizeof value);
  return value;
}

uint32_t unmasked(uint32_t masked) {
  const uint32_t rotated = masked - 0xa282ead8;
  return rotated >> 17 | rotated << 15;
}

TEST(EventFile, SumsAreThoseOfTheStandard) {
  EXPECT_EQ(unmasked(masked_crc32c("123456789")), 0xe3069283u);
  EXPECT_EQ(unmasked(masked_crc32c(std::string(32, '\0'))), 0x8a9136aau);    // RFC 3720, B.4
  EXPECT_EQ(unmasked(masked_crc32c(std::string(32, '\xff'))), 0x62a8ab43u);  // the same
}

TEST(EventFile, HoldsTheScalars) {
  const auto found = records(
      render_events({{"train/loss", 300, 1000.25, 1.5}, {"validation/bleu", 1 << 20, 1001, -2}}));
  ASSERT_TRUE(found);
  ASSERT_EQ(found->size(), 3u);
  EXPECT_EQ(parse((*found)[0]).bytes[3], "brain.Event:2");
  Fields event = parse((*found)[1]);
  EXPECT_EQ(as_double(event.numbers[1]), 1000.25);
  EXPECT_EQ(event.numbers[2], 300u);
  Fields value = parse(parse(event.bytes[5]).bytes[1]);
  EXPECT_EQ(value.bytes[1], "train/loss");
  EXPECT_EQ(as_float(value.numbers[2]), 1.5f);
  event = parse((*found)[2]);
  EXPECT_EQ(event.numbers[2], uint64_t{1} << 20);
  value = parse(parse(event.bytes[5]).bytes[1]);
  EXPECT_EQ(value.bytes[1], "validation/bleu");
  EXPECT_EQ(as_float(value.numbers[2]), -2.0f);
}

TEST(EventFile, IsNotEmptyWithoutScalars) {
  const auto found = records(render_events({}));
  ASSERT_TRUE(found);
  EXPECT_EQ(found->size(), 1u);
}

TEST(EventFile, AChangedByteIsNoticedByTheReader) {
  std::string file = render_events({{"loss", 1, 0.0, 1.0}});
  file[file.size() - 6] ^= 1;
  EXPECT_FALSE(records(file));
}

}  // namespace
}  // namespace headloom::report

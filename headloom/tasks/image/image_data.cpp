#include "headloom/tasks/image/image_data.h"

#include <charconv>
#include <cmath>

#include "headloom/base/check.h"
#include "headloom/tasks/files.h"
#include "headloom/text/lines.h"

namespace headloom::tasks::image {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kRecord = 1 + 3 * kCifarPixels, kClasses = 10;

void append_cifar(const fs::path& path, Examples& examples) {
  const std::string bytes = read_file(path);
  const auto size = static_cast<int64_t>(bytes.size());
  HEADLOOM_CHECK(size > 0 && size % kRecord == 0, path.string(),
                 cat("records of ", kRecord, " bytes, as CIFAR-10's binary version has them"),
                 cat(size, " bytes"));
  for (int64_t record = 0; record < size; record += kRecord) {
    const auto* data = reinterpret_cast<const uint8_t*>(bytes.data()) + record;
    HEADLOOM_CHECK(data[0] < kClasses, cat(path.string(), ", record ", record / kRecord),
                   "a class 0 to 9", cat(int(data[0])));
    Example& example = examples.emplace_back();
    example.value = data[0];
    example.tokens.resize(kCifarPixels);
    for (int64_t i = 0; i < kCifarPixels; ++i) {
      const uint8_t* red = data + 1 + i;
      example.tokens[static_cast<size_t>(i)] =
          grey_of(red[0], red[kCifarPixels], red[2 * kCifarPixels]);
    }
  }
}

// The values of a line, 0 .. 255 each.
std::vector<uint8_t> values_of(const std::string& line, const std::string& where) {
  std::vector<uint8_t> values;
  for (size_t begin = 0; begin <= line.size();) {
    const size_t end = std::min(line.find(',', begin), line.size());
    uint8_t value = 0;
    const char* stop = line.data() + end;
    const auto [at, error] = std::from_chars(line.data() + begin, stop, value);
    HEADLOOM_CHECK(error == std::errc() && at == stop, where, "whole numbers 0 to 255 with commas",
                   excerpt(std::string_view(line).substr(begin, end - begin)));
    values.push_back(value);
    begin = end + 1;
  }
  return values;
}

}  // namespace

uint8_t grey_of(uint8_t red, uint8_t green, uint8_t blue) {
  const double grey = 0.2989 * red + 0.5870 * green + 0.1140 * blue;
  return static_cast<uint8_t>(std::floor(255.5 / 255.0 * grey));
}

Examples read_cifar(const fs::path& folder, bool training) {
  Examples examples;
  if (!training) {
    append_cifar(folder / "test_batch.bin", examples);
    return examples;
  }
  for (int number = 1; number == 1 || fs::exists(folder / cat("data_batch_", number, ".bin"));
       ++number) {
    append_cifar(folder / cat("data_batch_", number, ".bin"), examples);
  }
  return examples;
}

Examples read_csv(const fs::path& file, int64_t pixels) {
  text::LineReader lines(text::source_of(read_file(file)), file.string());
  Examples examples;
  for (std::string line; lines.next(line);) {
    const std::string where = cat(file.string(), ':', lines.number());
    Example& example = examples.emplace_back();
    example.tokens = values_of(line, where);
    const auto count = static_cast<int64_t>(example.tokens.size()) - 1;
    HEADLOOM_CHECK(count == pixels, where, cat(pixels, " pixels and a class"),
                   cat(count + 1, " values"), "Change task.pixels.");
    example.value = example.tokens.back();
    example.tokens.pop_back();
    HEADLOOM_CHECK(example.value < kClasses, where, "a class 0 to 9 last", cat(int(example.value)));
  }
  HEADLOOM_CHECK(!examples.empty(), file.string(), "rows", "none");
  return examples;
}

}  // namespace headloom::tasks::image

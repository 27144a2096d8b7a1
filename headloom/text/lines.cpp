#include "headloom/text/lines.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "headloom/base/check.h"
#include "headloom/text/utf8.h"

namespace headloom::text {
namespace {

constexpr size_t kBlock = size_t{1} << 16;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

std::string hexadecimal(char byte) {
  char text[8];
  std::snprintf(text, sizeof text, "\\x%02x", static_cast<unsigned char>(byte));
  return text;
}

}  // namespace

Source source_of(std::string bytes) {
  const auto rest = std::make_shared<std::string>(std::move(bytes));
  return [rest, at = size_t{0}](char* buffer, size_t size) mutable {
    const size_t count = std::min(size, rest->size() - at);
    std::memcpy(buffer, rest->data() + at, count);
    at += count;
    return count;
  };
}

Source source_of_descriptor(int descriptor) {
  return [descriptor](char* buffer, size_t size) {
    while (true) {
      const ssize_t count = ::read(descriptor, buffer, size);
      if (count >= 0) return static_cast<size_t>(count);
      if (errno == EINTR) continue;
      throw RunError(cat("input: expected to read; found ", std::strerror(errno), "."));
    }
  };
}

LineReader::LineReader(Source source, std::string where, LineOptions options)
    : source_(std::move(source)), where_(std::move(where)), options_(options) {}

bool LineReader::fill() {
  buffer_.resize(kBlock);
  buffer_.resize(source_(buffer_.data(), kBlock));
  at_ = 0;
  return !buffer_.empty();
}

bool LineReader::read_raw(std::string& line) {
  line.clear();
  bool any = false;
  while (at_ < buffer_.size() || fill()) {
    any = true;
    const size_t end = std::min(buffer_.find('\n', at_), buffer_.size());
    line.append(buffer_, at_, end - at_);
    HEADLOOM_CHECK(line.size() <= options_.longest, cat(where_, ':', number_ + 1),
                   cat("a line of at most ", options_.longest, " bytes"), "a longer one",
                   "Break the text into lines.");
    at_ = end + 1;
    if (end < buffer_.size()) return true;
  }
  return any;
}

bool LineReader::next(std::string& line) {
  if (!read_raw(line)) return false;
  if (++number_ == 1 && line.starts_with(kByteOrderMark)) line.erase(0, kByteOrderMark.size());
  if (line.ends_with('\r')) line.pop_back();
  if (const auto invalid = first_invalid(line)) {
    HEADLOOM_CHECK(options_.invalid == InvalidUtf8::kRepair, cat(where_, ':', number_),
                   "valid UTF-8", cat(hexadecimal(line[*invalid]), " as byte ", *invalid + 1),
                   "Convert the text, e.g. with iconv.");
    line = repair(line);
  }
  return true;
}

}  // namespace headloom::text

#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace headloom::text {

enum class InvalidUtf8 { kRepair, kRefuse };

struct LineOptions {
  InvalidUtf8 invalid = InvalidUtf8::kRepair;
  // Bytes; a longer line is refused before it fills the memory. Long enough for a corpus that has
  // no line breaks at all.
  size_t longest = size_t{128} << 20;
};

// Fills a buffer and returns the bytes written, 0 at the end; may return fewer than fit.
using Source = std::function<size_t(char* buffer, size_t size)>;

Source source_of(std::string bytes);
// A file descriptor, which stays open and the caller's. What is there is handed on at once, so that
// a filter answers a line when it has been written. RunError when reading fails.
Source source_of_descriptor(int descriptor);

// Cuts a source of bytes into lines.
//   Ends of lines   "\n", left out with a "\r" before it. A "\r" elsewhere is an ordinary
//   character,
//                   but for one at the very end. The last line may lack its end; an end does not
//                   start another line.
//   Byte-order mark U+FEFF is left out at the start of the source, and an ordinary character
//                   elsewhere.
//   Invalid UTF-8   repaired (utf8.h), or refused with the line and the byte.
//   NUL             an ordinary character.
//   Endless lines   refused beyond `longest` bytes, with the line.
// Errors name `where` and the line, "train.txt:7".
class LineReader {
 public:
  LineReader(Source source, std::string where, LineOptions options = {});

  // False at the end. `line` is valid UTF-8.
  bool next(std::string& line);
  int64_t number() const { return number_; }  // of the line last read, from 1

 private:
  bool read_raw(std::string& line);
  bool fill();

  Source source_;
  std::string where_;
  LineOptions options_;
  std::string buffer_;
  size_t at_ = 0;
  int64_t number_ = 0;
};

}  // namespace headloom::text

#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace headloom::cli {

// Turns tokens into text as they come. A character may span several tokens: its first bytes wait
// until it is whole, or until the end.
class TextStream {
 public:
  using Decode = std::function<std::string(const std::vector<int64_t>&)>;
  using Write = std::function<void(std::string_view)>;
  TextStream(Decode decode, Write write) : decode_(std::move(decode)), write_(std::move(write)) {}

  void add(int64_t token) { tokens_.push_back(token); }
  void flush();  // writes what is new and whole
  void end();    // writes the rest

 private:
  Decode decode_;
  Write write_;
  std::vector<int64_t> tokens_;
  size_t written_ = 0;  // bytes
};

// Bytes of `text` without a UTF-8 character that has begun at its end and is not whole.
size_t whole_bytes(std::string_view text);

}  // namespace headloom::cli

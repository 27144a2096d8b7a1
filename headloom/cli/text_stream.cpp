#include "headloom/cli/text_stream.h"

namespace headloom::cli {

size_t whole_bytes(std::string_view text) {
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if ((byte & 0xC0) == 0x80) continue;
    const size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
    return length > back ? text.size() - back : text.size();
  }
  return text.size();
}

void TextStream::flush() {
  const std::string text = decode_(tokens_);
  const size_t whole = whole_bytes(text);
  if (whole <= written_) return;
  write_(std::string_view(text).substr(written_, whole - written_));
  written_ = whole;
}

void TextStream::end() {
  const std::string text = decode_(tokens_);
  if (text.size() > written_) write_(std::string_view(text).substr(written_));
  written_ = text.size();
}

}  // namespace headloom::cli

#include "headloom/cli/text_stream.h"

#include <gtest/gtest.h>

namespace headloom::cli {
namespace {

// One token a byte.
std::string decode(const std::vector<int64_t>& tokens) {
  return {tokens.begin(), tokens.end()};
}

std::vector<std::string> pieces_of(const std::string& text) {
  std::vector<std::string> pieces;
  TextStream stream(decode, [&](std::string_view piece) { pieces.emplace_back(piece); });
  for (const char byte : text) {
    stream.add(static_cast<unsigned char>(byte));
    stream.flush();
  }
  stream.end();
  return pieces;
}

using Pieces = std::vector<std::string>;

TEST(TextStream, WritesEachCharacterWhole) {
  EXPECT_EQ(pieces_of("a\u20acb"), (Pieces{"a", "\u20ac", "b"}));
  EXPECT_EQ(pieces_of("\u00e9\U0001F600"), (Pieces{"\u00e9", "\U0001F600"}));
}

TEST(TextStream, WritesWhatIsCutShortAtTheEnd) {
  EXPECT_EQ(pieces_of("a\xe2\x82"), (Pieces{"a", "\xe2\x82"}));
}

TEST(TextStream, DoesNotWaitForBytesThatCannotBecomeWhole) {
  EXPECT_EQ(pieces_of("\x80\x80\x80\x80x").back(), "x");
  EXPECT_EQ(pieces_of("\xff"
                      "ab")
                .size(),
            2u)
      << "a lone lead byte waits until the next character";
}

TEST(WholeBytes, StopsBeforeACharacterThatHasBegun) {
  EXPECT_EQ(whole_bytes(""), 0u);
  EXPECT_EQ(whole_bytes("abc"), 3u);
  EXPECT_EQ(whole_bytes("ab\xc3"), 2u);
  EXPECT_EQ(whole_bytes("ab\xf0\x9f\x98"), 2u);
  EXPECT_EQ(whole_bytes("ab\xf0\x9f\x98\x80"), 6u);
}

}  // namespace
}  // namespace headloom::cli

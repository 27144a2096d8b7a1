#include "headloom/text/lines.h"

#include <fcntl.h>
#include <unistd.h>

#include "tests/text/support.h"

namespace headloom::text {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// In pieces of `size` bytes, as a pipe may hand them on.
Source in_pieces(const std::string& bytes, size_t size) {
  return [source = source_of(bytes), size](char* buffer, size_t room) {
    return source(buffer, std::min(size, room));
  };
}

std::vector<std::string> lines_of(const std::string& bytes, LineOptions options = {},
                                  size_t piece = 3) {
  LineReader reader(in_pieces(bytes, piece), "file", options);
  std::vector<std::string> lines;
  for (std::string line; reader.next(line);) lines.push_back(line);
  EXPECT_EQ(reader.number(), static_cast<int64_t>(lines.size()));
  return lines;
}

TEST(LineReader, EndsLinesWithOrWithoutCarriageReturns) {
  EXPECT_THAT(lines_of("one\ntwo\r\nthree\n"), ElementsAre("one", "two", "three"));
  EXPECT_THAT(lines_of("a\rb\r\nc"), ElementsAre("a\rb", "c"));
  EXPECT_THAT(lines_of("\n\r\n\n"), ElementsAre("", "", ""));
  EXPECT_THAT(lines_of(""), ElementsAre());
}

TEST(LineReader, DropsTheByteOrderMarkOfTheStartAlone) {
  EXPECT_THAT(lines_of("\uFEFFone\n\uFEFFtwo"), ElementsAre("one", "\uFEFFtwo"));
}

TEST(LineReader, KeepsNul) {
  EXPECT_THAT(lines_of(std::string("a\0b\nc", 5)), ElementsAre(std::string("a\0b", 3), "c"));
}

TEST(LineReader, RepairsInvalidTextOrRefusesIt) {
  EXPECT_THAT(lines_of("good\nb\377d\n"), ElementsAre("good", "b\uFFFDd"));
  LineOptions strict;
  strict.invalid = InvalidUtf8::kRefuse;
  EXPECT_THAT(message_of([&] { lines_of("good\nb\377d\n", strict); }),
              AllOf(HasSubstr("file:2: expected valid UTF-8"), HasSubstr("\\xff as byte 2")));
}

TEST(LineReader, RefusesALineWithoutEndBeforeItFillsTheMemory) {
  size_t given = 0;
  LineOptions options;
  options.longest = 1 << 20;
  LineReader reader(
      [&](char* buffer, size_t size) {
        std::fill(buffer, buffer + size, 'x');
        given += size;
        return size;
      },
      "/dev/endless", options);
  std::string line;
  EXPECT_THAT(message_of([&] { reader.next(line); }),
              HasSubstr("/dev/endless:1: expected a line of at most 1048576 bytes"));
  EXPECT_LT(given, size_t{2} << 20);
}

TEST(LineReader, GivesALineAsSoonAsItIsThere) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  LineReader reader(source_of_descriptor(ends[0]), "pipe");
  ASSERT_EQ(::write(ends[1], "first\nsec", 9), 9);
  std::string line;
  ASSERT_TRUE(reader.next(line));
  EXPECT_EQ(line, "first");
  ASSERT_EQ(::write(ends[1], "ond\n", 4), 4);
  ASSERT_TRUE(reader.next(line));
  EXPECT_EQ(line, "second");
  ::close(ends[1]);
  EXPECT_FALSE(reader.next(line));
  ::close(ends[0]);
}

TEST(LineReader, SaysWhenReadingFails) {
  const int folder = ::open("/", O_RDONLY);
  LineReader reader(source_of_descriptor(folder), "folder");
  std::string line;
  EXPECT_THROW(reader.next(line), RunError);
  ::close(folder);
}

}  // namespace
}  // namespace headloom::text

#include "headloom/tasks/files.h"

#include "tests/tasks/support.h"

namespace headloom::tasks {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(Files, ResolvesAgainstTheBaseFolder) {
  EXPECT_EQ(resolve("recipes", "../data/a.txt"), "data/a.txt");
  EXPECT_EQ(resolve("recipes", "/data/a.txt"), "/data/a.txt");
}

TEST(Files, ReadsAllBytes) {
  const TempFolder folder;
  std::string bytes;
  for (int i = 0; i < 200'000; ++i) bytes += static_cast<char>(i * 7);
  EXPECT_EQ(read_file(folder.write("bytes", bytes)), bytes);
  EXPECT_EQ(read_file(folder.write("empty", "")), "");
}

TEST(Files, RefusesWhatCannotBeRead) {
  const TempFolder folder;
  EXPECT_THAT(message_of([&] { read_file(folder.path() / "absent.txt"); }),
              AllOf(HasSubstr("absent.txt"), HasSubstr("no such file")));
  EXPECT_THAT(message_of([&] { read_file(folder.path()); }), HasSubstr("found a folder"));
  EXPECT_THAT(message_of([] { read_file("/dev/null"); }), HasSubstr("expected a regular file"));
}

TEST(Files, ReportsAReadThatFails) {
  // Its first page is never mapped, so reading it from the start fails.
  const std::filesystem::path memory = "/proc/self/mem";
  if (!std::filesystem::exists(memory)) GTEST_SKIP() << "no " << memory;
  EXPECT_THAT(message_of([&] { read_file(memory); }),
              HasSubstr("/proc/self/mem: expected a readable file"));
}

TEST(Files, RefusesCompressedFilesWithAdvice) {
  const TempFolder folder;
  const auto file = folder.write("corpus.txt.xz", "x");
  EXPECT_THAT(message_of([&] { read_file(file); }),
              AllOf(HasSubstr("a .xz file"), HasSubstr("`xz -dk " + file.string() + "`")));
}

TEST(Files, WritesWholeFilesAndMakesTheirFolders) {
  const TempFolder folder;
  const auto path = folder.path() / "a" / "b" / "file";
  write_file(path, "first");
  write_file(path, "second");
  EXPECT_EQ(read_file(path), "second");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(path.parent_path()), {}), 1);
  EXPECT_THROW(write_file("/dev/null/file", "x"), RunError);
}

TEST(Files, QuotesControlBytesAndCutsLongText) {
  EXPECT_EQ(excerpt("a\tb"), "\"a\\x09b\"");
  EXPECT_EQ(excerpt(std::string(61, 'x')), '"' + std::string(60, 'x') + "...\"");
}

}  // namespace
}  // namespace headloom::tasks

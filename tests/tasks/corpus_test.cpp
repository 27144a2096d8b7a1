#include "headloom/tasks/corpus.h"

#include "tests/tasks/support.h"

namespace headloom::tasks {
namespace {

using ::testing::HasSubstr;

TEST(Corpus, IsTheBytesOfAFile) {
  const TempFolder folder;
  const std::string bytes("a\0\xff\r\nb", 6);
  EXPECT_EQ(read_corpus(folder.write("text", bytes)), bytes);
}

TEST(Corpus, JoinsTheFilesOfAFolderInOrder) {
  const TempFolder folder;
  folder.write("b.txt", "second");
  folder.write("a/z.txt", "first\n");
  folder.write("c.txt", "");
  folder.write("d/e/f", "third\n");
  folder.write(".hidden", "no");
  folder.write(".git/config", "no");
  EXPECT_EQ(read_corpus(folder.path()), "first\nsecond\nthird\n");
}

TEST(Corpus, FollowsLinksToFilesAndSkipsOtherThings) {
  const TempFolder folder, elsewhere;
  folder.write("a", "a\n");
  std::filesystem::create_symlink(elsewhere.write("linked", "b\n"), folder.path() / "b");
  std::filesystem::create_symlink("/dev/zero", folder.path() / "endless");
  std::filesystem::create_symlink(folder.path(), folder.path() / "itself");
  std::filesystem::create_symlink(folder.path() / "gone", folder.path() / "dangling");
  EXPECT_EQ(read_corpus(folder.path()), "a\nb\n");
}

TEST(Corpus, RefusesWhatHoldsNoText) {
  const TempFolder folder;
  EXPECT_THAT(message_of([&] { read_corpus(folder.path()); }),
              HasSubstr("expected a folder with files; found none"));
  EXPECT_THAT(message_of([&] { read_corpus(folder.path() / "absent"); }),
              HasSubstr("absent: expected a readable file; found no such file"));
  EXPECT_THAT(message_of([&] { read_corpus(folder.write("text.gz", "x")); }),
              HasSubstr("gzip -dk"));
}

}  // namespace
}  // namespace headloom::tasks

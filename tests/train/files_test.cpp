#include "headloom/train/files.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include "headloom/base/check.h"
#include "tests/train/temporary_folder.h"

namespace headloom::train {
namespace {

namespace fs = std::filesystem;
using headloom::testing::message_of;
using headloom::testing::read_bytes;
using headloom::testing::TemporaryFolder;
using headloom::testing::write_bytes;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// One bit at a time, as the definition has it.
uint32_t slow_crc32(const std::string& bytes) {
  uint32_t sum = 0xFFFFFFFFu;
  for (unsigned char byte : bytes) {
    sum ^= byte;
    for (int bit = 0; bit < 8; ++bit) sum = (sum >> 1) ^ ((sum & 1) ? 0xEDB88320u : 0u);
  }
  return ~sum;
}

TEST(Files, CrcOfTheCheckString) {
  EXPECT_EQ(crc32("123456789", 9), 0xCBF43926u);
}

TEST(Files, CrcAgreesWithItsDefinitionForAnyLengthAndSplit) {
  std::string bytes;
  for (int i = 0; i < 67; ++i) {
    const uint32_t expected = slow_crc32(bytes);
    EXPECT_EQ(crc32(bytes.data(), bytes.size()), expected) << i;
    const size_t half = bytes.size() / 2;
    const uint32_t first = crc32(bytes.data(), half);
    EXPECT_EQ(crc32(bytes.data() + half, bytes.size() - half, first), expected) << i;
    bytes.push_back(static_cast<char>(37 * i * i + 11));
  }
}

TEST(Files, OutputAppearsOnCommit) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a");
  write_bytes(path, "before");
  {
    OutputFile file(path);
    file.write("af", 2);
    file.write("ter", 3);
    EXPECT_EQ(read_bytes(path), "before");
    EXPECT_EQ(file.commit(), (FileSum{5, crc32("after", 5)}));
  }
  EXPECT_EQ(read_bytes(path), "after");
  EXPECT_EQ(sum_file(path), (FileSum{5, crc32("after", 5)}));
  EXPECT_FALSE(fs::exists(path + ".tmp"));
}

TEST(Files, WithoutCommitNothingChanges) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a");
  write_bytes(path, "before");
  {
    OutputFile file(path);
    file.write("after", 5);
    EXPECT_TRUE(fs::exists(path + ".tmp"));
  }
  EXPECT_EQ(read_bytes(path), "before");
  EXPECT_FALSE(fs::exists(path + ".tmp"));
}

TEST(Files, FullDiskIsNamed) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  const TemporaryFolder folder;
  const std::string path = folder.file("a");
  write_bytes(path, "before");
  fs::create_symlink("/dev/full", path + ".tmp");
  const std::string message = message_of<Error>([&] { write_text(path, "after"); });
  EXPECT_THAT(message, StartsWith(path + ": expected to write 5 bytes"));
  EXPECT_THAT(message, HasSubstr("No space left on device. Free some space"));
  EXPECT_EQ(read_bytes(path), "before");
  EXPECT_FALSE(fs::is_symlink(path + ".tmp"));
}

TEST(Files, RefusalsNameThePath) {
  const TemporaryFolder folder;
  const std::string missing = folder.file("none/a");
  EXPECT_THAT(message_of<Error>([&] { InputFile file(missing); }),
              AllOf(StartsWith(missing), HasSubstr("No such file or directory")));
  EXPECT_THAT(message_of<Error>([&] { OutputFile file(missing); }),
              AllOf(StartsWith(missing), HasSubstr("No such file or directory")));
  EXPECT_THAT(message_of<Error>([&] { InputFile file(folder.path()); }),
              HasSubstr("expected a regular file; found a folder"));
  const std::string pipe = folder.file("pipe");
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(message_of<Error>([&] { InputFile file(pipe); }),
              HasSubstr("expected a regular file; found a device or pipe"));
  write_bytes(folder.file("a"), "12345");
  EXPECT_THAT(message_of<Error>([&] { read_text(folder.file("a"), 4); }),
              HasSubstr("expected at most 4 bytes; found 5 bytes"));
  EXPECT_EQ(read_text(folder.file("a"), 5), "12345");
  char byte = 0;
  EXPECT_THAT(message_of<Error>([&] { InputFile(folder.file("a")).read(&byte, 1, 5); }),
              HasSubstr("expected to read 1 bytes at byte 5; found the end of the file at 5"));
  EXPECT_THAT(message_of<Error>([&] { create_folder(folder.file("a/b")); }),
              StartsWith(folder.file("a/b") + ": expected to create the folder"));
  EXPECT_THAT(message_of<Error>([&] { rename_path(missing, folder.file("b")); }),
              StartsWith(folder.file("b") + ": expected to rename " + missing));
}

TEST(Files, FoldersComeAndGo) {
  const TemporaryFolder folder;
  const std::string inner = folder.file("x/y");
  create_folder(inner);
  create_folder(inner);
  EXPECT_TRUE(is_folder(inner));
  write_text(inner + "/z", "");
  EXPECT_EQ(sum_file(inner + "/z"), FileSum{});
  remove_path(folder.file("x"));
  remove_path(folder.file("x"));
  EXPECT_FALSE(is_folder(folder.file("x")));
}

}  // namespace
}  // namespace headloom::train

#include "headloom/train/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <vector>

#include "headloom/base/check.h"

namespace headloom::train {
namespace {

static_assert(std::endian::native == std::endian::little, "crc32 reads words in memory order");

// Linux moves at most 2^31 - 4096 bytes a call.
constexpr size_t kMaxTransfer = size_t{1} << 30;
constexpr size_t kSumChunk = size_t{1} << 20;

using CrcTables = std::array<std::array<uint32_t, 256>, 8>;

// Table k advances a byte's remainder by k further zero bytes, so that eight bytes are taken at
// once.
constexpr CrcTables make_crc_tables() {
  CrcTables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t remainder = byte;
    for (int bit = 0; bit < 8; ++bit) {
      remainder = (remainder >> 1) ^ ((remainder & 1) ? 0xEDB88320u : 0u);
    }
    tables[0][byte] = remainder;
  }
  for (size_t k = 1; k < 8; ++k) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t before = tables[k - 1][byte];
      tables[k][byte] = (before >> 8) ^ tables[0][before & 0xFF];
    }
  }
  return tables;
}

constexpr CrcTables kCrc = make_crc_tables();

std::string reason(int code) {
  return std::generic_category().message(code);
}

[[noreturn]] void fail_system(const std::string& path, std::string_view expected, int code) {
  fail(path, expected, reason(code),
       code == ENOSPC || code == EDQUOT ? "Free some space or choose another folder." : "");
}

// Calls `action` until a signal no longer interrupts it.
template <class Action>
auto retry(const Action& action) {
  auto result = action();
  while (result < 0 && errno == EINTR) result = action();
  return result;
}

std::string parent_of(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

}  // namespace

uint32_t crc32(const void* data, size_t size, uint32_t previous) {
  const auto* bytes = static_cast<const uint8_t*>(data);
  uint32_t sum = ~previous;
  for (; size >= 8; size -= 8, bytes += 8) {
    uint32_t low, high;
    std::memcpy(&low, bytes, 4);
    std::memcpy(&high, bytes + 4, 4);
    low ^= sum;
    sum = kCrc[7][low & 0xFF] ^ kCrc[6][(low >> 8) & 0xFF] ^ kCrc[5][(low >> 16) & 0xFF] ^
          kCrc[4][low >> 24] ^ kCrc[3][high & 0xFF] ^ kCrc[2][(high >> 8) & 0xFF] ^
          kCrc[1][(high >> 16) & 0xFF] ^ kCrc[0][high >> 24];
  }
  for (; size > 0; --size, ++bytes) sum = (sum >> 8) ^ kCrc[0][(sum ^ *bytes) & 0xFF];
  return ~sum;
}

OutputFile::OutputFile(std::string path) : path_(std::move(path)), temporary_(path_ + ".tmp") {
  descriptor_ = retry(
      [&] { return ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666); });
  if (descriptor_ < 0) fail_system(path_, "to create the file", errno);
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void OutputFile::write(const void* data, size_t size) {
  const auto* bytes = static_cast<const char*>(data);
  for (size_t done = 0; done < size;) {
    const size_t chunk = std::min(size - done, kMaxTransfer);
    const ssize_t count = retry([&] { return ::write(descriptor_, bytes + done, chunk); });
    if (count < 0) {
      fail_system(path_, cat("to write ", size, " bytes after byte ", sum_.bytes), errno);
    }
    done += static_cast<size_t>(count);
  }
  sum_.crc32 = crc32(data, size, sum_.crc32);
  sum_.bytes += size;
}

FileSum OutputFile::commit() {
  if (retry([&] { return ::fsync(descriptor_); }) < 0) {
    fail_system(path_, "to sync the file to disk", errno);
  }
  const int descriptor = descriptor_;
  descriptor_ = -1;
  if (::close(descriptor) < 0 && errno != EINTR) fail_system(path_, "to close the file", errno);
  rename_path(temporary_, path_);
  temporary_.clear();
  return sum_;
}

InputFile::InputFile(std::string path) : path_(std::move(path)) {
  // Without O_NONBLOCK, opening a pipe waits for a writer.
  descriptor_ = retry([&] { return ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); });
  if (descriptor_ < 0) fail_system(path_, "to open the file", errno);
  struct stat status {};
  const bool known = ::fstat(descriptor_, &status) == 0;
  if (!known || !S_ISREG(status.st_mode)) {
    const int code = errno;
    ::close(descriptor_);
    if (!known) fail_system(path_, "to open the file", code);
    fail(path_, "a regular file", S_ISDIR(status.st_mode) ? "a folder" : "a device or pipe");
  }
  size_ = static_cast<uint64_t>(status.st_size);
}

InputFile::~InputFile() {
  ::close(descriptor_);
}

void InputFile::read(void* data, size_t size, uint64_t offset) const {
  auto* bytes = static_cast<char*>(data);
  for (size_t done = 0; done < size;) {
    const size_t chunk = std::min(size - done, kMaxTransfer);
    const ssize_t count = retry([&] {
      return ::pread(descriptor_, bytes + done, chunk, static_cast<off_t>(offset + done));
    });
    const auto expected = [&] { return cat("to read ", size, " bytes at byte ", offset); };
    if (count < 0) fail_system(path_, expected(), errno);
    HEADLOOM_CHECK(count > 0, path_, expected(), cat("the end of the file at ", offset + done));
    done += static_cast<size_t>(count);
  }
}

FileSum write_text(const std::string& path, std::string_view text) {
  OutputFile file(path);
  file.write(text.data(), text.size());
  return file.commit();
}

std::string read_text(const std::string& path, uint64_t limit) {
  const InputFile file(path);
  HEADLOOM_CHECK(file.size() <= limit, path, cat("at most ", limit, " bytes"),
                 cat(file.size(), " bytes"));
  std::string text(file.size(), '\0');
  file.read(text.data(), text.size(), 0);
  return text;
}

FileSum sum_file(const std::string& path) {
  const InputFile file(path);
  std::vector<char> chunk(std::min<uint64_t>(file.size(), kSumChunk));
  FileSum sum;
  while (sum.bytes < file.size()) {
    const size_t size = std::min<uint64_t>(chunk.size(), file.size() - sum.bytes);
    file.read(chunk.data(), size, sum.bytes);
    sum.crc32 = crc32(chunk.data(), size, sum.crc32);
    sum.bytes += size;
  }
  return sum;
}

bool is_folder(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::is_directory(path, ignored);
}

void create_folder(const std::string& path) {
  if (is_folder(path)) return;
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) fail_system(path, "to create the folder", error.value());
  sync_folder(parent_of(path));
}

void sync_folder(const std::string& path) {
  const int descriptor =
      retry([&] { return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  if (descriptor < 0) fail_system(path, "to open the folder", errno);
  const int result = retry([&] { return ::fsync(descriptor); });
  const int code = errno;
  ::close(descriptor);
  // Some file systems cannot sync a folder and say so; the rename is then as durable as it gets.
  if (result < 0 && code != EINVAL && code != ENOTSUP) {
    fail_system(path, "to sync the folder to disk", code);
  }
}

void rename_path(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) < 0) {
    fail_system(to, cat("to rename ", from, " to it"), errno);
  }
  sync_folder(parent_of(to));
}

void remove_path(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error) fail_system(path, "to remove it", error.value());
}

}  // namespace headloom::train

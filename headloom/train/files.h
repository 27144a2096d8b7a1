#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

// Files that are either whole or not there. Every failure is an Error that names the file and the
// system's reason.
namespace headloom::train {

struct FileSum {
  uint64_t bytes = 0;
  uint32_t crc32 = 0;
  bool operator==(const FileSum&) const = default;
};

// CRC-32 as in zip and PNG (reflected polynomial 0xEDB88320). `previous` is the sum of the bytes
// before these, so that a file can be summed in pieces.
uint32_t crc32(const void* data, size_t size, uint32_t previous = 0);

// A file being written under the name "<path>.tmp". commit() syncs it to disk and renames it to
// `path`; without commit() the destructor removes it and whatever was at `path` stays.
class OutputFile {
 public:
  explicit OutputFile(std::string path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(const void* data, size_t size);
  // The size and sum of everything that was written.
  FileSum commit();

 private:
  std::string path_, temporary_;
  int descriptor_ = -1;
  FileSum sum_;
};

// A regular file open for reading; a folder, a pipe or a device is refused.
class InputFile {
 public:
  explicit InputFile(std::string path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  uint64_t size() const { return size_; }
  // Exactly `size` bytes from `offset`; fewer is an Error.
  void read(void* data, size_t size, uint64_t offset) const;

 private:
  std::string path_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

FileSum write_text(const std::string& path, std::string_view text);
// Refuses a file of more than `limit` bytes.
std::string read_text(const std::string& path, uint64_t limit);
FileSum sum_file(const std::string& path);

bool is_folder(const std::string& path);
// With the folders above it; nothing when it exists.
void create_folder(const std::string& path);
// Makes the names in a folder durable: a rename survives a power cut only after this.
void sync_folder(const std::string& path);
// Renames and syncs the folder that holds `to`.
void rename_path(const std::string& from, const std::string& to);
// Removes a file or a folder with its contents; nothing when there is none.
void remove_path(const std::string& path);

}  // namespace headloom::train

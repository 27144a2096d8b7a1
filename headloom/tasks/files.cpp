#include "headloom/tasks/files.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>

#include "headloom/base/check.h"

namespace headloom::tasks {
namespace {

namespace fs = std::filesystem;

void refuse_compressed(const fs::path& path) {
  static const std::map<std::string, std::string> kUnpack = {
      {".xz", "xz -dk"}, {".gz", "gzip -dk"}, {".bz2", "bzip2 -dk"}, {".zst", "zstd -d"}};
  const auto found = kUnpack.find(path.extension().string());
  if (found == kUnpack.end()) return;
  fail(path.string(), "an uncompressed file", cat("a ", found->first, " file"),
       cat("Unpack it with `", found->second, " ", path.string(), "` and name the result."));
}

}  // namespace

fs::path resolve(const std::string& base_folder, const std::string& path) {
  return (fs::path(base_folder) / path).lexically_normal();
}

std::string read_file(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  HEADLOOM_CHECK(fs::exists(status), path.string(), "a readable file",
                 status.type() == fs::file_type::not_found ? "no such file" : error.message());
  HEADLOOM_CHECK(fs::is_regular_file(status), path.string(), "a regular file",
                 fs::is_directory(status) ? "a folder" : "something else");
  refuse_compressed(path);

  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  HEADLOOM_CHECK(file, path.string(), "a readable file", std::strerror(errno));
  std::string bytes;
  char buffer[1 << 16];
  while (const size_t count = std::fread(buffer, 1, sizeof buffer, file.get())) {
    bytes.append(buffer, count);
  }
  HEADLOOM_CHECK(!std::ferror(file.get()), path.string(), "a readable file", std::strerror(errno));
  return bytes;
}

void write_file(const fs::path& path, std::string_view bytes) {
  std::error_code error;
  if (path.has_parent_path()) fs::create_directories(path.parent_path(), error);
  // Processes that write the same file at the same time do not share a temporary one.
  const fs::path temporary = cat(path.string(), '.', ::getpid(), ".tmp");
  std::ofstream file(temporary, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (file) fs::rename(temporary, path, error);
  if (file && !error) return;
  const std::string reason = error ? error.message() : std::strerror(errno);
  fs::remove(temporary, error);
  throw RunError(
      cat(path.string(), ": expected to write ", bytes.size(), " bytes; found ", reason, "."));
}

std::string excerpt(std::string_view text) {
  constexpr size_t kLongest = 60;
  std::string result = "\"";
  for (const char c : text.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      char escaped[5];
      std::snprintf(escaped, sizeof escaped, "\\x%02x", byte);
      result += escaped;
    } else {
      result += c;
    }
  }
  return result + (text.size() > kLongest ? "...\"" : "\"");
}

}  // namespace headloom::tasks

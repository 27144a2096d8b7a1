#include "headloom/train/metrics_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "headloom/base/check.h"
#include "headloom/train/files.h"
#include "headloom/train/metrics_json.h"

namespace headloom::train {
namespace {

// Whether a line belongs to the run up to last_step.
bool belongs(const std::string& line, int64_t last_step) {
  const Json object = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object() || !object.contains("step")) return false;
  const Json& step = object["step"];
  return step.is_number_integer() && step.get<int64_t>() <= last_step;
}

void drop_lines_beyond(const std::string& path, int64_t last_step) {
  if (!std::filesystem::exists(path)) return;
  std::string kept;
  bool dropped = false;
  if (last_step > 0) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
      const bool whole = !file.eof() && belongs(line, last_step);
      dropped |= !whole;
      if (whole) kept += line + '\n';
    }
  }
  if (dropped || last_step == 0) write_text(path, kept);
}

}  // namespace

MetricsFile::MetricsFile(const std::string& path, int64_t last_step) {
  drop_lines_beyond(path, last_step);
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  HEADLOOM_CHECK(descriptor_ >= 0, path, "a file that can be written", std::strerror(errno));
  size_ = ::lseek(descriptor_, 0, SEEK_END);
}

MetricsFile::~MetricsFile() {
  flush();
  ::close(descriptor_);
}

bool MetricsFile::append(const std::string& line) {
  waiting_ += line + '\n';
  return flush();
}

bool MetricsFile::flush() {
  if (waiting_.empty()) return true;
  const ssize_t count = ::write(descriptor_, waiting_.data(), waiting_.size());
  if (count == static_cast<ssize_t>(waiting_.size())) {
    size_ += count;
    waiting_.clear();
    return true;
  }
  // Half a line would be torn for every reader; if even this fails, the next resume drops it.
  if (count > 0 && ::ftruncate(descriptor_, size_) != 0) {
    size_ += count;
    waiting_.erase(0, static_cast<size_t>(count));
  }
  return false;
}

void MetricsFile::sync() {
  flush();
  ::fdatasync(descriptor_);
}

}  // namespace headloom::train

#include "headloom/train/run_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "headloom/base/check.h"

namespace headloom::train {
namespace {

std::string owner(int descriptor) {
  char text[32] = {};
  const ssize_t count = ::pread(descriptor, text, sizeof text - 1, 0);
  return count > 0 ? cat("process ", text, " training in it") : "another process training in it";
}

}  // namespace

RunLock::RunLock(const std::string& folder) {
  const std::string path = folder + "/.lock";
  descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  HEADLOOM_CHECK(descriptor_ >= 0, path, "a lock file that can be written", std::strerror(errno));
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
    const std::string found =
        errno == EWOULDBLOCK ? owner(descriptor_) : std::string(std::strerror(errno));
    ::close(descriptor_);
    fail(folder, "a run folder that no other process uses", found,
         "Wait for it to end, or choose another folder.");
  }
  const std::string text = std::to_string(::getpid());
  // The number is for the message above alone; the lock holds without it.
  const bool named =
      ::ftruncate(descriptor_, 0) == 0 && ::pwrite(descriptor_, text.data(), text.size(), 0) > 0;
  static_cast<void>(named);
}

RunLock::~RunLock() {
  ::close(descriptor_);
}

}  // namespace headloom::train

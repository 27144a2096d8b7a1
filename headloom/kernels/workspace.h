#pragma once

#include <cstddef>
#include <cstdint>

namespace headloom::kernels {

// Memory for one call on the calling thread, aligned to a cache line and not initialised. It stays
// with the thread up to kKept bytes, because fresh memory costs a page fault every 4 KiB, which for
// short sequences is more than the work. The next call on the thread overwrites it; one that is
// made while another is in use gets memory of its own. Made and destroyed on the same thread.
class WorkspaceBytes {
 public:
  static constexpr std::size_t kKept = std::size_t{8} << 20;

  explicit WorkspaceBytes(std::size_t bytes);
  ~WorkspaceBytes();
  WorkspaceBytes(const WorkspaceBytes&) = delete;
  WorkspaceBytes& operator=(const WorkspaceBytes&) = delete;

 protected:
  void* data_;

 private:
  bool owned_;
};

// The same, counted in numbers.
template <class T>
class Workspace : private WorkspaceBytes {
 public:
  explicit Workspace(int64_t count) : WorkspaceBytes(static_cast<std::size_t>(count) * sizeof(T)) {}
  T* data() const { return static_cast<T*>(data_); }
};

}  // namespace headloom::kernels

#pragma once

#include <cstddef>

namespace headloom::kernels {

// Memory for one call on the calling thread, aligned to a cache line and not initialised. It stays
// with the thread up to kKept bytes, because fresh memory costs a page fault every 4 KiB, which for
// short sequences is more than the work. The next call on the thread overwrites it.
class Workspace {
 public:
  static constexpr std::size_t kKept = std::size_t{8} << 20;

  explicit Workspace(std::size_t bytes);
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_;
  bool owned_;
};

}  // namespace headloom::kernels

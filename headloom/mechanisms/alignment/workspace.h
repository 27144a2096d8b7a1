#pragma once

#include <cstdint>
#include <new>

namespace headloom {

// Numbers that begin at a cache line; not initialised.
template <class T>
class Workspace {
 public:
  explicit Workspace(int64_t size)
      : data_(static_cast<T*>(::operator new(static_cast<size_t>(size) * sizeof(T), kAlignment))) {}
  ~Workspace() { ::operator delete(data_, kAlignment); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  T* data() const { return data_; }

 private:
  static constexpr std::align_val_t kAlignment{64};
  T* data_;
};

}  // namespace headloom

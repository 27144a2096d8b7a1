#include "headloom/kernels/workspace.h"

#include <new>

namespace headloom::kernels {
namespace {

constexpr std::align_val_t kLine{64};

struct Kept {
  void* data = nullptr;
  std::size_t bytes = 0;
  bool lent = false;
  ~Kept() { ::operator delete(data, kLine); }
};
thread_local Kept kept;

}  // namespace

WorkspaceBytes::WorkspaceBytes(std::size_t bytes) : owned_(bytes > kKept || kept.lent) {
  if (owned_) {
    data_ = ::operator new(bytes, kLine);
    return;
  }
  if (kept.bytes < bytes) {
    ::operator delete(kept.data, kLine);
    kept = Kept{};
    kept.data = ::operator new(bytes, kLine);
    kept.bytes = bytes;
  }
  kept.lent = true;
  data_ = kept.data;
}

WorkspaceBytes::~WorkspaceBytes() {
  if (owned_) {
    ::operator delete(data_, kLine);
  } else {
    kept.lent = false;
  }
}

}  // namespace headloom::kernels

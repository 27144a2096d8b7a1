#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <utility>
#include <vector>

namespace headloom {

// The queries and keys of one pass, projected but not scaled: q [B, H, Tq, D], k [B, H, Tk, D].
// Undefined masks mean: nothing to say.
struct QueryKeys {
  at::Tensor q, k;
  at::Tensor query_padding;  // [B, Tq] bool, true where a position is padding
  at::Tensor key_padding;    // [B, Tk]
  at::Tensor cu_seqlens;     // [sequences + 1]: several sequences packed along T, with B = 1
};

// What attention that has queries and keys adds to its module, so that an objective can watch them.
// Nothing is kept, and nothing costs anything, unless somebody records.
class QueryKeySource {
 public:
  virtual ~QueryKeySource() = default;

  // D. Refused where queries are the keys, which nothing could align.
  virtual int64_t query_width() const = 0;

  // From now on the passes in training mode leave their queries and keys, until take_passes();
  // passes without gradients leave nothing, for there is nothing to train.
  void record(bool on) { recording_ = on; }
  // What the passes since the last call left, oldest first.
  std::vector<QueryKeys> take_passes() { return std::exchange(passes_, {}); }

 protected:
  // Whether note() would keep a pass: before one is made for it alone.
  bool records(bool training) const { return recording_ && training && at::GradMode::is_enabled(); }
  void note(bool training, QueryKeys pass) {
    if (records(training)) passes_.push_back(std::move(pass));
  }

 private:
  bool recording_ = false;
  std::vector<QueryKeys> passes_;
};

}  // namespace headloom

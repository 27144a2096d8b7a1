#include "headloom/mechanisms/symmetric/symmetric_state.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace headloom {

using at::Tensor;

void SymmetricState::append(const std::vector<Tensor>& pieces) {
  const int64_t needed = length_ + pieces[0].size(2);
  for (size_t i = 0; i < pieces.size(); ++i) {
    const Tensor& piece = pieces[i];
    if (!kept_[i].defined() || needed > kept_[i].size(2)) {
      // The first piece, often a whole prompt or memory, gets no room to grow.
      const int64_t capacity = length_ == 0 ? std::max<int64_t>(16, needed) : 2 * needed;
      const Tensor larger =
          at::empty({piece.size(0), piece.size(1), capacity, piece.size(3)}, piece.options());
      if (length_ > 0) larger.narrow(2, 0, length_).copy_(kept(i));
      kept_[i] = larger;
    }
    kept_[i].narrow(2, length_, piece.size(2)).copy_(piece);
  }
  length_ = needed;
}

void SymmetricState::reorder(const Tensor& index) {
  for (Tensor& tensor : kept_) {
    if (tensor.defined()) tensor = tensor.index_select(0, index);
  }
  if (padding_mask_.defined()) padding_mask_ = padding_mask_.index_select(0, index);
}

int64_t SymmetricState::bytes() const {
  int64_t sum = padding_mask_.defined() ? static_cast<int64_t>(padding_mask_.nbytes()) : 0;
  for (const Tensor& tensor : kept_) {
    if (tensor.defined()) sum += static_cast<int64_t>(tensor.nbytes());
  }
  return sum;
}

}  // namespace headloom

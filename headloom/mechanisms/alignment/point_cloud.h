#pragma once

#include <algorithm>
#include <vector>

#include "headloom/base/parallel.h"
#include "headloom/kernels/workspace.h"
#include "headloom/mechanisms/alignment/pair_kernels.h"
#include "headloom/mechanisms/alignment/point_selection.h"

// Points of one head, ready for the kernels of pair_kernels.h, and those kernels over all of them.
namespace headloom {

template <class T>
const kernels::PairKernels<T>& pair_kernels() {
  const kernels::PairTable& table = kernels::pair_table(kernels::active_isa());
  if constexpr (std::is_same_v<T, double>) {
    return table.f64;
  } else {
    return table.f32;
  }
}

template <class S>
const kernels::RowKernels<S>& row_kernels() {
  const kernels::PairTable& table = kernels::pair_table(kernels::active_isa());
  if constexpr (std::is_same_v<S, double>) {
    return table.rows_f64;
  } else if constexpr (std::is_same_v<S, float>) {
    return table.rows_f32;
  } else if constexpr (std::is_same_v<S, BFloat16>) {
    return table.rows_bf16;
  } else {
    return table.rows_f16;
  }
}

// The points of one side of one head: which, and from where they are read.
template <class S>
struct PointSource {
  int64_t count;
  const int64_t* index;
  const S* rows;  // [points, width]
  int64_t width;

  PointSource(const kernels::Selection& selection, const S* all, int64_t width, int64_t heads,
              int64_t head)
      : count(selection.count[head / heads]),
        index(selection.index + head / heads * selection.points),
        rows(all + head * selection.points * width),
        width(width) {}
};

template <class T>
class PointCloud {
 public:
  // `factor` multiplies the products of this cloud's points as queries.
  template <class S>
  PointCloud(const PointSource<S>& source, T factor)
      : size_(source.count),
        width_(source.width),
        panels_((size_ + pair_kernels<T>().panel - 1) / pair_kernels<T>().panel),
        rows_(size_ * width_),
        panel_rows_(padded() * width_),
        half_square_(static_cast<size_t>(size_)) {
    row_kernels<S>().gather(source.rows, width_, source.index, size_, rows_.data());
    pair_kernels<T>().make_panels(rows_.data(), size_, width_, factor, panel_rows_.data());
    for (int64_t i = 0; i < size_; ++i) {
      T sum = 0;
      for (int64_t d = 0; d < width_; ++d) sum += row(i)[d] * row(i)[d];
      half_square_[static_cast<size_t>(i)] = sum / 2;
    }
  }

  int64_t size() const { return size_; }
  int64_t width() const { return width_; }
  int64_t padded() const { return panels_ * pair_kernels<T>().panel; }
  const T* row(int64_t i) const { return rows_.data() + i * width_; }
  T half_square(int64_t i) const { return half_square_[static_cast<size_t>(i)]; }

  // body(args, first panel, end) in parallel, with this cloud as queries.
  template <class Body>
  void against(const PointCloud& keys, const T* key_bias, const T* query_bias,
               const Body& body) const {
    const kernels::PairArgs<T> args{keys.size_,        width_,   panel_rows_.data(),
                                    keys.rows_.data(), key_bias, query_bias};
    // A piece of work is worth a thread from some 10^5 pairs on.
    const int64_t pairs = pair_kernels<T>().panel * std::max<int64_t>(keys.size_, 1);
    const int64_t grain = std::max<int64_t>(1, int64_t{100000} / pairs);
    parallel_for(0, panels_, grain, [&](int64_t begin, int64_t end) { body(args, begin, end); });
  }

 private:
  int64_t size_, width_, panels_;
  kernels::Workspace<T> rows_, panel_rows_;
  std::vector<T> half_square_;
};

// body(head) for all heads: on all threads when there are enough heads, otherwise one after
// another, each on all threads.
template <class Body>
void for_each_head(int64_t heads, const Body& body) {
  if (heads >= 2 * thread_count()) {
    parallel_for(0, heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t head = begin; head < end; ++head) body(head);
    });
  } else {
    for (int64_t head = 0; head < heads; ++head) body(head);
  }
}

// Adds s * sum_j w_ij dc/dx_i to the gradient rows of a cloud: dc/dx = x - y or -y.
template <class T>
class GradientRows {
 public:
  explicit GradientRows(const PointCloud<T>& cloud)
      : cloud_(cloud),
        total_(static_cast<size_t>(cloud.size() * cloud.width())),
        rows_(cloud.padded() * cloud.width()),
        sums_(cloud.padded()) {}

  void add(const PointCloud<T>& keys, const T* key_bias, const T* query_bias,
           kernels::PairGradient<T> weights, T factor, bool differences) {
    weights.rows = rows_.data();
    weights.sum = sums_.data();
    cloud_.against(keys, key_bias, query_bias, [&](const auto& args, int64_t begin, int64_t end) {
      const kernels::Workspace<T> workspace(pair_kernels<T>().panel * cloud_.width());
      kernels::PairGradient<T> part = weights;
      part.workspace = workspace.data();
      pair_kernels<T>().gradient(args, begin, end, part);
    });
    const int64_t width = cloud_.width();
    for (int64_t i = 0; i < cloud_.size(); ++i) {
      const T own = differences ? sums_.data()[i] : T(0);
      for (int64_t d = 0; d < width; ++d) {
        total_[static_cast<size_t>(i * width + d)] +=
            factor * (own * cloud_.row(i)[d] - rows_.data()[i * width + d]);
      }
    }
  }

  template <class S>
  void write(const PointSource<S>& target, S* rows) const {
    row_kernels<S>().scatter(total_.data(), cloud_.width(), target.index, cloud_.size(), rows,
                             T(1));
  }

 private:
  const PointCloud<T>& cloud_;
  std::vector<T> total_;
  kernels::Workspace<T> rows_, sums_;
};

}  // namespace headloom

#pragma once

#include "headloom/mechanisms/talking_heads/talking_heads_tile.h"

// The gradients of the two biases, from the gradient of one tile of mixed logits.
namespace headloom::kernels::HEADLOOM_ISA {

// grad [rows, lanes] of one head from (query, key) on, added to bias_grad at that place.
template <class S, class T = accumulator_t<S>>
void add_to_bias(const LogitTiles<S>& tiles, const HeadBias<T>& bias, int64_t h, int64_t key,
                 int64_t rows, const T* grad, T* edge) {
  T* to = bias.data + tiles.segment.batch * bias.batch_stride + h * bias.head_stride +
          tiles.query * bias.query_stride + key * bias.key_stride;
  const int64_t lanes = tiles.lanes;
  if (bias.key_stride == 0) {
    // One sum a query.
    for (int64_t lane = 0; lane < lanes; lane += kWidth<T>) {
      Vec<T> sum = zero<T>();
      for (int64_t r = 0; r < rows; ++r) sum = sum + load(grad + r * lanes + lane);
      store(edge + lane, sum);
    }
    for (int64_t i = 0; i < tiles.count; ++i) to[i * bias.query_stride] += edge[i];
    return;
  }
  if (bias.query_stride == 0) {
    for (int64_t r = 0; r < rows; ++r) {
      Vec<T> sum = zero<T>();
      for (int64_t lane = 0; lane < lanes; lane += kWidth<T>) {
        sum = sum + load(grad + r * lanes + lane);
      }
      to[r * bias.key_stride] += sum_lanes(sum);
    }
    return;
  }
  transpose_tile(grad, lanes, rows, tiles.count, edge, tiles.tile_keys);
  for (int64_t i = 0; i < tiles.count; ++i) {
    for_each_vector<T>(rows, [&](int64_t r, auto some) HEADLOOM_INLINE_LAMBDA {
      T* at = to + i * bias.query_stride + r;
      store_at(at, some, load_at(at, some) + load_at(edge + i * tiles.tile_keys + r, some));
    });
  }
}

// The same for the bias by distance: queries in the lanes lie side by side in it.
template <class S, class T = accumulator_t<S>>
void add_to_relative_bias(const LogitTiles<S>& tiles, T* relative, int64_t h, int64_t key,
                          int64_t rows, const T* grad) {
  T* to =
      relative +
      (tiles.args.relative_head_stride == 0 ? 0 : h) * (tiles.args.queries + tiles.args.keys - 1) +
      tiles.query - key + tiles.args.keys - 1;
  for (int64_t r = 0; r < rows; ++r) {
    for_each_vector<T>(tiles.count, [&](int64_t i, auto some) HEADLOOM_INLINE_LAMBDA {
      store_at(to - r + i, some,
               load_at(to - r + i, some) + load_at(grad + r * tiles.lanes + i, some));
    });
  }
}

}  // namespace headloom::kernels::HEADLOOM_ISA

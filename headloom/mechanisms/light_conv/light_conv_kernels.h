#pragma once

#include <cstdint>
#include <type_traits>

#include "headloom/base/numeric.h"
#include "headloom/kernels/isa.h"

// The fused kernels of both convolutions on the processor, on raw pointers.
//
// B batch, T time, C channels, H heads, R = C / H channels of a head, K taps, P left padding,
// G groups of tiles. S is the storage type of x, logits and results, A its accumulator.
namespace headloom::kernels {

// DropConnect with a mask of its own for each position, [B, T, H, K] (base/rng.h).
struct DropConnectArgs {
  bool active = false;
  uint64_t seed = 0, threshold = 0;
  double kept = 1.0;
};

// What forward and backward share. Strides count elements; channels and taps are contiguous.
template <class S>
struct ConvArgs {
  using A = accumulator_t<S>;
  int64_t batch, time, channels, heads, taps;
  int64_t left;       // P, at most K - 1
  int64_t delay = 0;  // what P is above that: position t of the output stands at t - delay of x
  int64_t tile_rows;  // most positions of a tile, a multiple of kTileQuantum
  const S* x;         // [B, T, C]
  int64_t x_batch_stride, x_time_stride;
  // The weights: logits of each position, or one kernel a head that is normalised and dropped
  // already. The other is nullptr.
  const S* logits;  // [B, T, H, K]
  int64_t logits_batch_stride, logits_time_stride, logits_head_stride;
  const A* shared;                  // [H, K]
  bool softmax = true;              // of the logits
  bool renorm = false;              // over the taps in range only
  const uint8_t* padded = nullptr;  // [B, T], 1 at padding
  DropConnectArgs drop = {};

  bool per_position() const { return logits != nullptr || drop.active; }
};

inline constexpr int64_t kTileQuantum = 16;

// Outputs begin .. end - 1 of the sequence first .. last - 1 in a row of the batch. Taps that leave
// the sequence read zeros.
struct ConvTile {
  int64_t batch, begin, end, first, last;
};

template <class S>
struct ConvForwardArgs {
  ConvArgs<S> conv;
  const accumulator_t<S>* bias;  // [C] or nullptr
  S* y;                          // [B, T, C], contiguous
  bool streamed;                 // y is larger than the caches
};

// A gradient that is nullptr is not computed. All are contiguous.
template <class S>
struct ConvBackwardArgs {
  ConvArgs<S> conv;
  const S* grad_y;  // [B, T, C]
  int64_t grad_y_batch_stride, grad_y_time_stride;
  S* grad_x;       // [B, T, C]; the positions that a delay hides from every tap are left alone
  S* grad_logits;  // [B, T, H, K]
  // Sums over the tiles of one call, added to what is there.
  accumulator_t<S>* grad_shared;  // [H, K], with respect to the normalised weights
  accumulator_t<S>* grad_bias;    // [C]
  bool streamed;
};

template <class S>
struct ConvForwardKernels {
  int64_t (*workspace_bytes)(const ConvArgs<S>&);
  // `workspace` is aligned to 64 bytes and used by no other thread.
  void (*run)(const ConvForwardArgs<S>&, const ConvTile* tiles, int64_t count, void* workspace);
};

template <class S>
struct ConvBackwardKernels {
  int64_t (*workspace_bytes)(const ConvBackwardArgs<S>&);
  void (*run)(const ConvBackwardArgs<S>&, const ConvTile* tiles, int64_t count, void* workspace);
};

struct ConvForwardTable {
  ConvForwardKernels<double> f64;
  ConvForwardKernels<float> f32;
  ConvForwardKernels<BFloat16> bf16;
  ConvForwardKernels<Half> f16;
};
struct ConvBackwardTable {
  ConvBackwardKernels<double> f64;
  ConvBackwardKernels<float> f32;
  ConvBackwardKernels<BFloat16> bf16;
  ConvBackwardKernels<Half> f16;
};

// The kernels of one instruction set; refuses one that does not run here.
const ConvForwardTable& conv_forward_table(Isa isa);
const ConvBackwardTable& conv_backward_table(Isa isa);

}  // namespace headloom::kernels

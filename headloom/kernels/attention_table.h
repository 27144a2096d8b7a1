#pragma once

#include "headloom/kernels/attention.h"

// What attention.cpp, which deals out the work, calls in the kernel files. Every kernel works in
// `space`, which holds as many T as the function beside it says.
namespace headloom::kernels {

HEADLOOM_INLINE int64_t query_tiles(int64_t queries) {
  return (queries + kQueryTile - 1) / kQueryTile;
}

// Tile i of a sequence in the order in which tiles are dealt out: first, last, second, ... so that
// any run of them costs the same when the mask is causal.
HEADLOOM_INLINE int64_t balanced_tile(int64_t i, int64_t tiles) {
  return i % 2 == 0 ? i / 2 : tiles - 1 - i / 2;
}

// Part of a backward pass: every parts-th tile of the queries of those heads that share one head of
// keys. With one part the results go to the tensors, otherwise to sums of this part.
template <class T>
struct AttentionShare {
  int64_t sequence, key_head, part, parts;
  T* grad_k;     // [keys, D]
  T* grad_v;     // [group, keys, Dv]
  T* grad_fold;  // [group, D, D]; null without a fold
};

// Part of a bias' gradient: what adds to keys [key_begin, key_end) of the rows of one tile.
struct BiasShare {
  int64_t batch, head, tile, key_begin, key_end;
};

template <class S>
struct AttentionForwardKernels {
  int64_t (*space)(const AttentionArgs<S>&);
  // Tiles [begin, end) of all: sequence by sequence, head by head, in the order of balanced_tile().
  void (*tiles)(const AttentionArgs<S>&, int64_t begin, int64_t end, accumulator_t<S>* space);
};

template <class S>
struct AttentionBackwardKernels {
  using T = accumulator_t<S>;
  int64_t (*space)(const AttentionGradArgs<S>&);
  void (*share)(const AttentionGradArgs<S>&, const AttentionShare<T>&, T* space);
  void (*bias)(const AttentionBiasGradArgs<S>&, const BiasShare&, T* space);
};

// The half-tile form, a head of a sequence at a time.
template <class S>
struct SymmetricForwardKernels {
  int64_t (*space)(const AttentionArgs<S>&);
  void (*head)(const AttentionArgs<S>&, int64_t sequence, int64_t head, accumulator_t<S>* space);
};

template <class S>
struct SymmetricBackwardKernels {
  using T = accumulator_t<S>;
  int64_t (*space)(const AttentionGradArgs<S>&);
  // The heads that share one head of q. grad_fold [group, D, D] is assigned; null without a fold.
  void (*heads)(const AttentionGradArgs<S>&, int64_t sequence, int64_t key_head, T* grad_fold,
                T* space);
};

template <template <class> class Kernels>
struct ForEachType {
  Kernels<double> f64;
  Kernels<float> f32;
  Kernels<BFloat16> bf16;
  Kernels<Half> f16;
};
using AttentionForwardTable = ForEachType<AttentionForwardKernels>;
using AttentionBackwardTable = ForEachType<AttentionBackwardKernels>;
using SymmetricForwardTable = ForEachType<SymmetricForwardKernels>;
using SymmetricBackwardTable = ForEachType<SymmetricBackwardKernels>;

// The kernels of one instruction set; refuse one that does not run here.
const AttentionForwardTable& attention_forward_table(Isa isa);
const AttentionBackwardTable& attention_backward_table(Isa isa);
const SymmetricForwardTable& symmetric_forward_table(Isa isa);
const SymmetricBackwardTable& symmetric_backward_table(Isa isa);

}  // namespace headloom::kernels

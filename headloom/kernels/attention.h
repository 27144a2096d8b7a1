#pragma once

#include <cstdint>

#include "headloom/base/inline.h"
#include "headloom/base/numeric.h"
#include "headloom/kernels/isa.h"

// The tile engine of the dot-product family, on raw pointers: attention and its gradient without a
// matrix of logits in memory (Rabe and Staats, 2021; Dao et al., 2022). One body serves double,
// float, BFloat16 and Half, computed in float (double for double).
//
//   logits[i, j] = scale q_i F k_j + bias[i, j]       F [D, D] for each head, or nothing
//   out_i = sum_j dropout(softmax_j(logits))[i, j] v_j
//
// Queries lie in the lanes: a tile of logits is [keys, queries], maxima and sums are vertical, keys
// and values are read as they lie in memory, and only a tile of queries is transposed, once.
// A query that sees no key gets zeros. B batch, H heads, Tq queries, Tk keys, D width of queries
// and keys, Dv width of values.
namespace headloom::kernels {

inline constexpr int64_t kQueryTile = 64;
inline constexpr int64_t kKeyBlock = 256;

// [B, H, rows, width]; the elements of a row are neighbours, strides count elements. `group`
// neighbouring heads read the same rows.
template <class S>
struct HeadRows {
  S* data = nullptr;
  int64_t batch_stride = 0, head_stride = 0, row_stride = 0;
  int64_t group = 1;

  HEADLOOM_INLINE S* at(int64_t batch, int64_t head, int64_t row) const {
    return data + batch * batch_stride + head / group * head_stride + row * row_stride;
  }
};

// Broadcasts to [B, H, Tq, Tk]: stride 0 where it does. key_stride is 1 or 0.
template <class S>
struct HeadBias {
  const S* data = nullptr;
  int64_t batch_stride = 0, head_stride = 0, query_stride = 0, key_stride = 0;

  HEADLOOM_INLINE const S* at(int64_t batch, int64_t head, int64_t query, int64_t key) const {
    return data + batch * batch_stride + head * head_stride + query * query_stride +
           key * key_stride;
  }
};

// Queries that see one range of keys: an element of the batch, or one of the sequences packed in
// it. The dropout mask of a sequence is that of a tensor [B, H, queries, keys] (base/dropout_mask).
struct AttentionSequence {
  int64_t batch;
  int64_t query_begin, queries;
  int64_t key_begin, keys;
  uint64_t seed;
};

template <class S>
struct AttentionArgs {
  using T = accumulator_t<S>;
  int64_t heads, width, value_width;  // H, D, Dv
  const AttentionSequence* sequences;
  int64_t sequence_count;
  HeadRows<const S> q, k, v;
  const T* fold = nullptr;             // F [H, D, D]
  const T* fold_transposed = nullptr;  // F^T [H, D, D], for the gradient
  HeadBias<S> bias;
  const uint8_t* padding = nullptr;  // [B, Tk], not 0: nothing sees the key
  int64_t padding_stride = 0;
  bool causal = false;  // query i of a sequence sees key j <= i + keys - queries
  double scale = 1.0;
  double dropout_p = 0.0;
  HeadRows<S> out;       // [B, H, Tq, Dv]
  HeadRows<T> log2_sum;  // [B, H, Tq, 1]: log2 sum_j e^logits[i, j], -inf where there is no key
};

template <class S>
struct AttentionGradArgs {
  using T = accumulator_t<S>;
  AttentionArgs<S> call;       // with out and log2_sum as the forward pass left them
  HeadRows<const S> grad_out;  // [B, H, Tq, Dv]
  HeadRows<S> grad_q;          // without data: q and k are one tensor, its gradient is grad_k
  HeadRows<S> grad_k, grad_v;  // [B, H / group, Tk, D], [B, H, Tk, Dv]
  T* grad_fold = nullptr;      // [H, D, D]
};

// The gradient of a bias, in the layout of its strides; sums over what it broadcasts over. Reads
// `call` and `grad_out` of the gradient's arguments.
template <class S>
struct AttentionBiasGradArgs {
  using T = accumulator_t<S>;
  AttentionGradArgs<S> call;
  int64_t batches, heads, queries, keys;  // the bias' own sizes: 1 where it broadcasts
  T* grad_bias;                           // contiguous, zeros on entry
};

// Runs on the threads of base/parallel.h with active_isa(). Sums are taken in an order that depends
// on the shapes and the number of threads alone. S is double, float, BFloat16 or Half.
template <class S>
void attention_forward(const AttentionArgs<S>& args);
template <class S>
void attention_backward(const AttentionGradArgs<S>& args);
template <class S>
void attention_bias_backward(const AttentionBiasGradArgs<S>& args);

// The same where q and k are one tensor, F is absent or equal to its transpose, and there is
// neither bias nor causal mask: scores are symmetric, and each pair of tiles is scored once and
// serves both (half-tile form). grad_fold is the symmetric part of F's gradient. The work is dealt
// out by heads.
template <class S>
void symmetric_forward(const AttentionArgs<S>& args);
template <class S>
void symmetric_backward(const AttentionGradArgs<S>& args);

}  // namespace headloom::kernels

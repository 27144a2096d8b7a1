#pragma once

#include <cstdint>

#include "headloom/base/numeric.h"
#include "headloom/kernels/isa.h"

// The fused kernels of talking-heads attention on raw pointers.
//
// B batch, Tq queries, Tk keys; K heads of queries and keys, H of the softmax, V of the values;
// D width of queries and keys, E width of values.
namespace headloom::kernels {

// [B, heads, T, width], width contiguous.
template <class S>
struct HeadRows {
  S* data = nullptr;
  int64_t batch_stride = 0, head_stride = 0, row_stride = 0;

  HEADLOOM_INLINE S* at(int64_t batch, int64_t head, int64_t row) const {
    return data + batch * batch_stride + head * head_stride + row * row_stride;
  }
};

// y[o] = sum_i (weights[i, o] + by_query[b, q, i, o] + by_key[b, k, i, o]) x[i], in each of
// `groups` groups of `in` input heads and `out` output heads.
template <class S>
struct HeadMixing {
  int64_t groups = 1, in = 0, out = 0;
  const S* weights = nullptr;   // [groups, in, out]; nullptr: heads stay what they are
  const S* by_query = nullptr;  // [B, Tq, groups, in, out] or nullptr
  const S* by_key = nullptr;    // [B, Tk, groups, in, out] or nullptr

  HEADLOOM_INLINE int64_t size() const { return groups * in * out; }
};

// [B, H, Tq, Tk]; strides are 0 along axes that it is broadcast over.
template <class S>
struct HeadBias {
  S* data = nullptr;
  int64_t batch_stride = 0, head_stride = 0, query_stride = 0, key_stride = 0;
};

enum class DropoutSite { kNone, kAfterMix, kBeforeMix, kPerKey };

// Queries and keys that see each other: a batch element, or one sequence of a packed batch.
struct AttentionSegment {
  int64_t batch, query_begin, queries, key_begin, keys;
  uint64_t seed;  // of its dropout mask
};

template <class S>
struct TalkingHeadsArgs {
  int64_t key_heads, heads, value_heads;  // K, H, V
  int64_t queries, keys;                  // Tq, Tk
  int64_t key_width, value_width;         // D, E
  HeadRows<const S> q, k, v;              // [B, K, Tq, D], [B, K, Tk, D], [B, V, Tk, E]
  HeadMixing<S> logits, weights;          // K to H heads, H to V heads
  HeadBias<const S> bias;                 // added to the mixed logits
  const S* relative_bias = nullptr;       // [H or 1, Tq + Tk - 1]: at i - j + Tk - 1
  int64_t relative_head_stride = 0;       // 0: one for all heads
  const bool* key_padding = nullptr;      // [B, Tk], true where a key is padding
  bool causal = false;                    // query i of a segment sees keys j <= i + keys - queries
  double scale = 1.0;
  DropoutSite dropout = DropoutSite::kNone;
  uint64_t drop_threshold = 0;
  double kept = 1.0;  // 1 / (1 - p)
};

// How a call is cut. A worker keeps what it has of a tile of queries for up to `strip_tiles` tiles
// of keys; with 0 it is computed twice. Backward, `members` workers share the keys of each tile of
// queries: member m has the tiles of keys m, m + members, ...
struct TalkingHeadsPlan {
  int64_t tile_queries, tile_keys, strip_tiles = 0, members = 1;
};

template <class S>
struct TalkingHeadsOutput {
  HeadRows<S> out;              // [B, V, Tq, E]
  accumulator_t<S>* log2_sums;  // [B, H, Tq]: log2 of the sum of 2^logit; nullptr: not wanted
};

// Sums over queries. The first four hold the keys of one segment; workers that share its keys have
// them in common. The others belong to the whole call and to one worker.
template <class T>
struct TalkingHeadsSums {
  T* keys = nullptr;            // [K, Tk, D], without the factor `scale`
  T* values = nullptr;          // [V, Tk, E]
  T* logits_by_key = nullptr;   // [Tk, K H], without the factor ln 2
  T* weights_by_key = nullptr;  // [Tk, H V]
  double* logits = nullptr;     // [K H], without the factor ln 2
  double* weights = nullptr;    // [H V]
  HeadBias<T> bias;             // added to; nullptr data: not wanted
  T* relative_bias = nullptr;   // [H or 1, Tq + Tk - 1]
};

template <class S>
struct TalkingHeadsGradients {
  HeadRows<const S> grad_out;         // [B, V, Tq, E]
  const accumulator_t<S>* log2_sums;  // of the forward pass
  HeadRows<S> q;                      // [B, K, Tq, D]
  S* logits_by_query = nullptr;       // [B, Tq, K H]
  S* weights_by_query = nullptr;      // [B, Tq, H V]
};

// Where the sums over the queries of a segment go, for its keys.
template <class S>
struct TalkingHeadsKeyGradients {
  HeadRows<S> k, v;
  S* logits_by_key = nullptr;   // [B, Tk, K H]
  S* weights_by_key = nullptr;  // [B, Tk, H V]
};

// The keys that the tile of queries [query, query + count) of a segment sees, from the first on.
HEADLOOM_INLINE int64_t visible_keys(bool causal, const AttentionSegment& segment, int64_t query,
                                     int64_t count) {
  if (!causal) return segment.keys;
  const int64_t seen = query + count + segment.keys - segment.queries;
  return seen < 0 ? 0 : seen < segment.keys ? seen : segment.keys;
}

// Workspaces are counted in elements of the accumulator's type; each worker has its own.
template <class S>
struct TalkingHeadsForward {
  using T = accumulator_t<S>;
  int64_t (*workspace)(const TalkingHeadsArgs<S>&, const TalkingHeadsPlan&);
  // The tile of queries from `query` on.
  void (*tile)(const TalkingHeadsArgs<S>&, const TalkingHeadsPlan&, const AttentionSegment&,
               int64_t query, const TalkingHeadsOutput<S>&, T* workspace);
};

// One worker's part of the backward pass of the tile of queries from `query` on.
template <class S>
struct TalkingHeadsTask {
  using T = accumulator_t<S>;
  const TalkingHeadsArgs<S>& args;
  const TalkingHeadsPlan& plan;
  const AttentionSegment& segment;
  const TalkingHeadsGradients<S>& gradients;
  const TalkingHeadsSums<T>& sums;
  int64_t query;
  // The sums of the segment's keys hold nothing yet. What is not seen then may not be seen later.
  bool fresh;
  int64_t member;            // of plan.members
  T* workspace;              // the member's
  int64_t workspace_stride;  // to the next member's
};

template <class S>
struct TalkingHeadsBackward {
  using T = accumulator_t<S>;
  using Task = TalkingHeadsTask<S>;
  int64_t (*workspace)(const TalkingHeadsArgs<S>&, const TalkingHeadsPlan&);
  // The stages of a tile of queries: each needs the one before it of all members. values() of the
  // next tile need not wait for finish() of other members.
  void (*values)(const Task&);
  void (*keys)(const Task&);
  void (*finish)(const Task&);
  // The gradients of keys [begin, end) of a segment: `sets` of sums, added in their order.
  // extents[i] keys were seen by set i; they never grow with i.
  void (*reduce)(const TalkingHeadsArgs<S>&, const AttentionSegment&, int64_t begin, int64_t end,
                 const TalkingHeadsSums<T>* sums, const int64_t* extents, int64_t sets,
                 const TalkingHeadsKeyGradients<S>&);
};

template <template <class> class Kernels>
struct TalkingHeadsTable {
  Kernels<double> f64;
  Kernels<float> f32;
  Kernels<BFloat16> bf16;
  Kernels<Half> f16;
};
using TalkingHeadsForwardTable = TalkingHeadsTable<TalkingHeadsForward>;
using TalkingHeadsBackwardTable = TalkingHeadsTable<TalkingHeadsBackward>;

// The kernels of one instruction set; refuse one that does not run here.
const TalkingHeadsForwardTable& talking_heads_forward_table(Isa isa);
const TalkingHeadsBackwardTable& talking_heads_backward_table(Isa isa);

}  // namespace headloom::kernels

#pragma once

#include <optional>
#include <vector>

#include "headloom/mechanisms/talking_heads/talking_heads_kernels.h"

// Cuts a call into tiles and gives them to threads. Knows no torch.
namespace headloom::kernels {

// Sizes that decide how a call is cut; the defaults are what was measured to be fastest.
struct TalkingHeadsTuning {
  int64_t tile_queries = 0;  // 0: by the sizes of the call
  int64_t tile_keys = 64;
  // What the strip of a pass, that of one tile of queries against all keys, may take for each
  // worker, and all strips together. Beyond it the tile is computed twice, in memory that does not
  // grow with the length.
  int64_t forward_strip_bytes = int64_t{32} << 20;
  int64_t backward_strip_bytes = int64_t{96} << 20;
  int64_t strips_bytes = int64_t{256} << 20;
  // What the sums over queries that workers keep for themselves may take in all. Fewer workers
  // share a sequence when they would need more.
  int64_t sums_bytes = int64_t{512} << 20;
  // Backward, whether workers share the keys of each tile of queries. By default that is decided by
  // the sizes of the call and what of the shared cache is taken to be free.
  std::optional<bool> share_keys;
  int64_t shared_cache_bytes = int64_t{24} << 20;
};

// How one call is run. Elements are of the accumulator's type.
struct TalkingHeadsRun {
  TalkingHeadsPlan plan;
  int64_t workers;    // in all
  int64_t workspace;  // elements a worker
  // Backward:
  int64_t team;         // workers that share a segment
  int64_t key_sums;     // elements for each plan.members workers
  int64_t own_sums;     // elements a worker
  int64_t double_sums;  // doubles a worker

  int64_t elements() const {
    return workers * (workspace + own_sums) + workers / plan.members * key_sums;
  }
  int64_t doubles() const { return workers * double_sums; }
};

// Gradients that belong to the whole call, in the accumulator's type. nullptr: not wanted.
template <class S>
struct TalkingHeadsTotals {
  using T = accumulator_t<S>;
  T* logits = nullptr;   // [K H]
  T* weights = nullptr;  // [H V]
  // [B, H, Tq, Tk] like the bias, zeros beforehand; `bias_size` elements in all.
  HeadBias<T> bias;
  int64_t bias_size = 0;
  T* relative_bias = nullptr;  // [H or 1, Tq + Tk - 1]
};

template <class S>
TalkingHeadsRun plan_talking_heads_forward(const TalkingHeadsArgs<S>& args,
                                           const std::vector<AttentionSegment>& segments,
                                           const TalkingHeadsTuning& tuning, Isa isa, int threads);

// `memory` has run.elements() elements at a multiple of 64 bytes.
template <class S>
void talking_heads_forward(const TalkingHeadsArgs<S>& args,
                           const std::vector<AttentionSegment>& segments,
                           const TalkingHeadsRun& run, Isa isa, const TalkingHeadsOutput<S>& output,
                           accumulator_t<S>* memory);

template <class S>
TalkingHeadsRun plan_talking_heads_backward(const TalkingHeadsArgs<S>& args,
                                            const std::vector<AttentionSegment>& segments,
                                            const TalkingHeadsTotals<S>& totals,
                                            const TalkingHeadsTuning& tuning, Isa isa, int threads);

template <class S>
struct TalkingHeadsBackwardCall {
  const TalkingHeadsArgs<S>& args;
  const std::vector<AttentionSegment>& segments;
  const TalkingHeadsRun& run;
  Isa isa;
  TalkingHeadsGradients<S> gradients;
  TalkingHeadsKeyGradients<S> key_gradients;
  TalkingHeadsTotals<S> totals;
  accumulator_t<S>* memory;  // run.elements() at a multiple of 64 bytes
  double* doubles;           // run.doubles()
};

template <class S>
void talking_heads_backward(const TalkingHeadsBackwardCall<S>& call);

}  // namespace headloom::kernels

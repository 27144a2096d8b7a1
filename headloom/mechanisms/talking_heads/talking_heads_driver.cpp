#include "headloom/mechanisms/talking_heads/talking_heads_driver.h"

#include <algorithm>

#include "headloom/base/parallel.h"
#include "headloom/kernels/isa_table.h"

HEADLOOM_BF16_ISA_TABLE(TalkingHeadsForwardTable, talking_heads_forward_table)
HEADLOOM_BF16_ISA_TABLE(TalkingHeadsBackwardTable, talking_heads_backward_table)

namespace headloom::kernels {
namespace {

int64_t vector_bytes(Isa isa) {
  return isa >= Isa::kAvx512 ? 64 : isa == Isa::kAvx2 ? 32 : 16;
}

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}
int64_t round_up(int64_t a, int64_t b) {
  return ceil_div(a, b) * b;
}
// Whole cache lines, so that workers do not share one.
int64_t lines(int64_t elements) {
  return round_up(elements, 16);
}

struct Longest {
  int64_t queries = 1, keys = 1;
};
Longest longest(const std::vector<AttentionSegment>& segments) {
  Longest found;
  for (const AttentionSegment& segment : segments) {
    found.queries = std::max(found.queries, segment.queries);
    found.keys = std::max(found.keys, segment.keys);
  }
  return found;
}

int64_t count_tiles(const AttentionSegment& segment, int64_t tile) {
  return ceil_div(segment.queries, tile);
}

// Tiles no larger than the segments, in whole pairs of vectors. Without a size from the caller
// `preferred` queries, or fewer while threads would have nothing to do.
template <class S>
TalkingHeadsPlan tiles_for(const std::vector<AttentionSegment>& segments, int64_t preferred,
                           const TalkingHeadsTuning& tuning, Isa isa, int threads) {
  const int64_t step = 2 * vector_bytes(isa) / static_cast<int64_t>(sizeof(accumulator_t<S>));
  const Longest most = longest(segments);
  int64_t queries = tuning.tile_queries > 0 ? tuning.tile_queries : preferred;
  const auto few = [&] {
    int64_t tiles = 0;
    for (const AttentionSegment& segment : segments) tiles += count_tiles(segment, queries);
    return tiles < 2 * threads;
  };
  while (tuning.tile_queries == 0 && queries > step && few()) queries /= 2;
  return {round_up(std::min(queries, most.queries), step),
          std::min(tuning.tile_keys, round_up(most.keys, 8)), 0};
}

// Keys and values of the longest segment, which every tile of queries reads.
template <class S>
int64_t key_bytes(const TalkingHeadsArgs<S>& args, const std::vector<AttentionSegment>& segments) {
  return longest(segments).keys * static_cast<int64_t>(sizeof(S)) *
         (args.key_heads * args.key_width + args.value_heads * args.value_width);
}

// Measured on 32 MiB of shared cache: small strips while keys and values stay there, then large
// tiles, which read them less often.
constexpr int64_t kFewKeys = int64_t{8} << 20, kManyKeys = int64_t{16} << 20;

int64_t strip_limit(const TalkingHeadsTuning& tuning, int64_t each, int threads) {
  return std::min(each, tuning.strips_bytes / threads);
}

// A strip of `heads` heads for all keys, if it is not too large.
template <class S>
int64_t strip_tiles(const TalkingHeadsPlan& plan, int64_t heads, int64_t keys, int64_t limit) {
  const int64_t tiles = ceil_div(keys, plan.tile_keys);
  const int64_t bytes = tiles * plan.tile_keys * heads * plan.tile_queries *
                        static_cast<int64_t>(sizeof(accumulator_t<S>));
  return bytes <= limit ? tiles : 0;
}

}  // namespace

template <class S>
TalkingHeadsRun plan_talking_heads_forward(const TalkingHeadsArgs<S>& args,
                                           const std::vector<AttentionSegment>& segments,
                                           const TalkingHeadsTuning& tuning, Isa isa, int threads) {
  TalkingHeadsRun run{};
  const int64_t bytes = key_bytes(args, segments);
  const int64_t preferred = bytes <= kFewKeys ? 64 : bytes <= kManyKeys ? 32 : 128;
  run.plan = tiles_for<S>(segments, preferred, tuning, isa, threads);
  run.plan.strip_tiles = strip_tiles<S>(run.plan, args.heads, longest(segments).keys,
                                        strip_limit(tuning, tuning.forward_strip_bytes, threads));
  if (run.plan.strip_tiles == 0) run.plan = tiles_for<S>(segments, 128, tuning, isa, threads);
  const auto& kernels = member_for<S>(talking_heads_forward_table(isa));
  run.workspace = lines(kernels.workspace(args, run.plan));
  int64_t tiles = 0;
  for (const AttentionSegment& segment : segments) {
    tiles += count_tiles(segment, run.plan.tile_queries);
  }
  run.workers = std::max<int64_t>(1, std::min<int64_t>(threads, tiles));
  return run;
}

template <class S>
void talking_heads_forward(const TalkingHeadsArgs<S>& args,
                           const std::vector<AttentionSegment>& segments,
                           const TalkingHeadsRun& run, Isa isa, const TalkingHeadsOutput<S>& output,
                           accumulator_t<S>* memory) {
  const auto& kernels = member_for<S>(talking_heads_forward_table(isa));
  const int64_t tile = run.plan.tile_queries;
  parallel_for(0, run.workers, 1, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker) {
      // Workers take neighbouring tiles, so that one sequence's keys are in the shared cache.
      int64_t turn = 0;
      for (const AttentionSegment& segment : segments) {
        for (int64_t i = count_tiles(segment, tile) - 1; i >= 0; --i, ++turn) {
          if (turn % run.workers != worker) continue;
          kernels.tile(args, run.plan, segment, i * tile, output, memory + worker * run.workspace);
        }
      }
    }
  });
}

namespace {

// The parts of a worker's sums, in its memory.
template <class S>
struct SumsLayout {
  using T = accumulator_t<S>;
  int64_t keys, values, logits_by_key, weights_by_key, bias, relative_bias;
  int64_t logits, weights;  // doubles

  SumsLayout(const TalkingHeadsArgs<S>& args, int64_t longest_keys,
             const TalkingHeadsTotals<S>& totals) {
    keys = lines(args.key_heads * longest_keys * args.key_width);
    values = lines(args.value_heads * longest_keys * args.value_width);
    logits_by_key = args.logits.by_key ? lines(longest_keys * args.logits.size()) : 0;
    weights_by_key = args.weights.by_key ? lines(longest_keys * args.weights.size()) : 0;
    // Where tiles of queries share an element, every worker has a bias gradient of its own.
    const bool own_bias = totals.bias.data != nullptr && totals.bias.query_stride == 0;
    bias = own_bias ? lines(totals.bias_size) : 0;
    const int64_t distances = args.queries + args.keys - 1;
    relative_bias = totals.relative_bias
                        ? lines((args.relative_head_stride == 0 ? 1 : args.heads) * distances)
                        : 0;
    logits = args.logits.weights ? lines(args.logits.size()) : 0;
    weights = args.weights.weights ? lines(args.weights.size()) : 0;
  }
  int64_t elements() const {
    return keys + values + logits_by_key + weights_by_key + bias + relative_bias;
  }
  int64_t doubles() const { return logits + weights; }

  TalkingHeadsSums<T> at(T* memory, double* doubles, const TalkingHeadsTotals<S>& totals) const {
    TalkingHeadsSums<T> sums;
    const auto take = [&memory](int64_t count) {
      T* const p = count > 0 ? memory : nullptr;
      memory += count;
      return p;
    };
    sums.keys = take(keys);
    sums.values = take(values);
    sums.logits_by_key = take(logits_by_key);
    sums.weights_by_key = take(weights_by_key);
    sums.bias = totals.bias;
    if (bias > 0) sums.bias.data = take(bias);
    sums.relative_bias = take(relative_bias);
    sums.logits = doubles;
    sums.weights = doubles + logits;
    return sums;
  }
};

}  // namespace

template <class S>
TalkingHeadsRun plan_talking_heads_backward(const TalkingHeadsArgs<S>& args,
                                            const std::vector<AttentionSegment>& segments,
                                            const TalkingHeadsTotals<S>& totals,
                                            const TalkingHeadsTuning& tuning, Isa isa,
                                            int threads) {
  using T = accumulator_t<S>;
  constexpr int64_t kBytes = sizeof(T);
  TalkingHeadsRun run{};
  const int64_t preferred = key_bytes(args, segments) <= kFewKeys ? 64 : 128;
  run.plan = tiles_for<S>(segments, preferred, tuning, isa, threads);
  const Longest most = longest(segments);
  run.plan.strip_tiles = strip_tiles<S>(run.plan, args.key_heads + 2 * args.heads, most.keys,
                                        strip_limit(tuning, tuning.backward_strip_bytes, threads));
  const auto& kernels = member_for<S>(talking_heads_backward_table(isa));
  run.workspace = lines(kernels.workspace(args, run.plan));
  const SumsLayout<S> layout(args, most.keys, totals);
  run.sums = layout.elements();
  run.double_sums = layout.doubles();

  const int64_t tiles = ceil_div(most.queries, run.plan.tile_queries);
  const int64_t affordable =
      std::max<int64_t>(1, tuning.sums_bytes / std::max<int64_t>(1, run.sums * kBytes));
  const int64_t workers = std::min<int64_t>(threads, affordable);
  // Where a sequence has work for all, its keys stay in the shared cache; else sequences are dealt
  // out.
  run.team = std::clamp<int64_t>(tiles / 2, 1, workers);
  int64_t teams = std::max<int64_t>(1, workers / run.team);
  teams = std::min<int64_t>(teams, std::max<size_t>(1, segments.size()));
  const bool shared_bias =
      totals.bias.data != nullptr && totals.bias.query_stride != 0 && totals.bias.batch_stride == 0;
  if (shared_bias) teams = 1;  // segments add to the same elements
  run.workers = teams * run.team;
  return run;
}

namespace {

// One backward pass: the workers' sums, in the caller's memory, and what is done with them.
template <class S>
class BackwardRun {
 public:
  using T = accumulator_t<S>;

  BackwardRun(const TalkingHeadsArgs<S>& args, const std::vector<AttentionSegment>& segments,
              const TalkingHeadsRun& run, Isa isa, const TalkingHeadsTotals<S>& totals, T* memory,
              double* doubles)
      : args_(args),
        segments_(segments),
        run_(run),
        totals_(totals),
        kernels_(member_for<S>(talking_heads_backward_table(isa))),
        layout_(args, longest(segments).keys, totals),
        memory_(memory),
        extents_(run.workers) {
    for (int64_t w = 0; w < run.workers; ++w) {
      T* const own = memory + run.workers * run.workspace + w * run.sums;
      sums_.push_back(layout_.at(own, doubles + w * run.double_sums, totals));
      std::fill_n(doubles + w * run.double_sums, run.double_sums, 0.0);
      if (layout_.bias > 0) std::fill_n(sums_[w].bias.data, layout_.bias, T(0));
      if (layout_.relative_bias > 0) {
        std::fill_n(sums_[w].relative_bias, layout_.relative_bias, T(0));
      }
    }
  }

  // Segments in groups of as many as there are teams.
  void compute(const TalkingHeadsGradients<S>& gradients,
               const TalkingHeadsKeyGradients<S>& key_gradients) {
    const int64_t team = run_.team, teams = run_.workers / team;
    const int64_t count = static_cast<int64_t>(segments_.size());
    for (int64_t first = 0; first < count; first += teams) {
      const int64_t here = std::min(teams, count - first);
      parallel_for(0, here * team, 1, [&](int64_t begin, int64_t end) {
        for (int64_t w = begin; w < end; ++w) work(segments_[first + w / team], w, gradients);
      });
      for (int64_t t = 0; t < here; ++t) reduce(segments_[first + t], t * team, key_gradients);
    }
  }

  // What belongs to the whole call. Logits are in base 2.
  void write_totals() const {
    constexpr double kLn2 = 0.6931471805599453;
    const int64_t relative_heads = args_.relative_head_stride == 0 ? 1 : args_.heads;
    add(totals_.logits, args_.logits.size(), kLn2, [](const Sums& sums) { return sums.logits; });
    add(totals_.weights, args_.weights.size(), 1.0, [](const Sums& sums) { return sums.weights; });
    add(layout_.bias > 0 ? totals_.bias.data : nullptr, totals_.bias_size, 1.0,
        [](const Sums& sums) { return sums.bias.data; });
    add(totals_.relative_bias, relative_heads * (args_.queries + args_.keys - 1), 1.0,
        [](const Sums& sums) { return sums.relative_bias; });
  }

 private:
  using Sums = TalkingHeadsSums<T>;

  // The tiles of one worker, from the last on, which sees the most keys: see `fresh`.
  void work(const AttentionSegment& segment, int64_t w, const TalkingHeadsGradients<S>& gradients) {
    const int64_t tile = run_.plan.tile_queries;
    extents_[w] = 0;
    bool fresh = true;
    for (int64_t i = count_tiles(segment, tile) - 1 - w % run_.team; i >= 0; i -= run_.team) {
      kernels_.tile(args_, run_.plan, segment, i * tile, gradients, sums_[w], fresh,
                    memory_ + w * run_.workspace);
      if (fresh) {
        extents_[w] = visible_keys(args_.causal, segment, i * tile,
                                   std::min(tile, segment.queries - i * tile));
      }
      fresh = false;
    }
  }

  // The gradients of a segment's keys, from the sums of the team that begins with worker `first`.
  void reduce(const AttentionSegment& segment, int64_t first,
              const TalkingHeadsKeyGradients<S>& key_gradients) const {
    parallel_for(0, segment.keys, 64, [&](int64_t begin, int64_t end) {
      kernels_.reduce(args_, segment, begin, end, sums_.data() + first, extents_.data() + first,
                      run_.team, key_gradients);
    });
  }

  // to = factor times the sum of the workers' `count` numbers, in their order; nullptr: not wanted.
  template <class Of>
  void add(T* to, int64_t count, double factor, const Of& of) const {
    if (to == nullptr) return;
    for (int64_t i = 0; i < count; ++i) {
      double sum = 0;
      for (const Sums& sums : sums_) sum += static_cast<double>(of(sums)[i]);
      to[i] = static_cast<T>(sum * factor);
    }
  }

  const TalkingHeadsArgs<S>& args_;
  const std::vector<AttentionSegment>& segments_;
  const TalkingHeadsRun& run_;
  const TalkingHeadsTotals<S>& totals_;
  const TalkingHeadsBackward<S>& kernels_;
  SumsLayout<S> layout_;
  T* memory_;
  std::vector<Sums> sums_;
  std::vector<int64_t> extents_;  // keys that a worker has seen
};

}  // namespace

template <class S>
void talking_heads_backward(const TalkingHeadsArgs<S>& args,
                            const std::vector<AttentionSegment>& segments,
                            const TalkingHeadsRun& run, Isa isa,
                            const TalkingHeadsGradients<S>& gradients,
                            const TalkingHeadsKeyGradients<S>& key_gradients,
                            const TalkingHeadsTotals<S>& totals, accumulator_t<S>* memory,
                            double* doubles) {
  BackwardRun<S> backward(args, segments, run, isa, totals, memory, doubles);
  backward.compute(gradients, key_gradients);
  backward.write_totals();
}

#define HEADLOOM_INSTANTIATE(S)                                                                 \
  template TalkingHeadsRun plan_talking_heads_forward(const TalkingHeadsArgs<S>&,               \
                                                      const std::vector<AttentionSegment>&,     \
                                                      const TalkingHeadsTuning&, Isa, int);     \
  template TalkingHeadsRun plan_talking_heads_backward(                                         \
      const TalkingHeadsArgs<S>&, const std::vector<AttentionSegment>&,                         \
      const TalkingHeadsTotals<S>&, const TalkingHeadsTuning&, Isa, int);                       \
  template void talking_heads_forward(                                                          \
      const TalkingHeadsArgs<S>&, const std::vector<AttentionSegment>&, const TalkingHeadsRun&, \
      Isa, const TalkingHeadsOutput<S>&, accumulator_t<S>*);                                    \
  template void talking_heads_backward(                                                         \
      const TalkingHeadsArgs<S>&, const std::vector<AttentionSegment>&, const TalkingHeadsRun&, \
      Isa, const TalkingHeadsGradients<S>&, const TalkingHeadsKeyGradients<S>&,                 \
      const TalkingHeadsTotals<S>&, accumulator_t<S>*, double*);

HEADLOOM_INSTANTIATE(double)
HEADLOOM_INSTANTIATE(float)
HEADLOOM_INSTANTIATE(BFloat16)
HEADLOOM_INSTANTIATE(Half)

}  // namespace headloom::kernels

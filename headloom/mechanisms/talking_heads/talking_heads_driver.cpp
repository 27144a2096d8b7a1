#include "headloom/mechanisms/talking_heads/talking_heads_driver.h"

#include <algorithm>

#include "headloom/base/parallel.h"
#include "headloom/kernels/isa_table.h"
#include "headloom/mechanisms/talking_heads/talking_heads_sums.h"

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
int64_t fewest_keys(const std::vector<AttentionSegment>& segments) {
  int64_t found = longest(segments).keys;
  for (const AttentionSegment& segment : segments) found = std::min(found, segment.keys);
  return found;
}

int64_t count_tiles(const AttentionSegment& segment, int64_t tile) {
  return ceil_div(segment.queries, tile);
}

// Tiles no larger than the segments, in whole pairs of vectors. Without a size from the caller
// `preferred` queries, or fewer while there are not `wanted` tiles.
template <class S>
TalkingHeadsPlan tiles_for(const std::vector<AttentionSegment>& segments, int64_t preferred,
                           const TalkingHeadsTuning& tuning, Isa isa, int64_t wanted) {
  const int64_t step = 2 * vector_bytes(isa) / static_cast<int64_t>(sizeof(accumulator_t<S>));
  const Longest most = longest(segments);
  int64_t queries = tuning.tile_queries > 0 ? tuning.tile_queries : preferred;
  const auto few = [&] {
    int64_t tiles = 0;
    for (const AttentionSegment& segment : segments) tiles += count_tiles(segment, queries);
    return tiles < wanted;
  };
  while (tuning.tile_queries == 0 && queries > step && few()) queries /= 2;
  return {round_up(std::min(queries, most.queries), step),
          std::min(tuning.tile_keys, round_up(most.keys, 8))};
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

// What a strip of `heads` heads for all keys of a worker takes.
template <class S>
int64_t strip_bytes(const TalkingHeadsPlan& plan, int64_t heads, int64_t keys) {
  return ceil_div(keys, plan.tile_keys * plan.members) * plan.tile_keys * heads *
         plan.tile_queries * static_cast<int64_t>(sizeof(accumulator_t<S>));
}

// Its tiles, if it is not too large.
template <class S>
int64_t strip_tiles(const TalkingHeadsPlan& plan, int64_t heads, int64_t keys, int64_t limit) {
  return strip_bytes<S>(plan, heads, keys) <= limit ? ceil_div(keys, plan.tile_keys * plan.members)
                                                    : 0;
}

}  // namespace

template <class S>
TalkingHeadsRun plan_talking_heads_forward(const TalkingHeadsArgs<S>& args,
                                           const std::vector<AttentionSegment>& segments,
                                           const TalkingHeadsTuning& tuning, Isa isa, int threads) {
  TalkingHeadsRun run{};
  const int64_t bytes = key_bytes(args, segments);
  const int64_t preferred = bytes <= kFewKeys ? 64 : bytes <= kManyKeys ? 32 : 128;
  run.plan = tiles_for<S>(segments, preferred, tuning, isa, 2 * threads);
  run.plan.strip_tiles = strip_tiles<S>(run.plan, args.heads, longest(segments).keys,
                                        strip_limit(tuning, tuning.forward_strip_bytes, threads));
  if (run.plan.strip_tiles == 0) run.plan = tiles_for<S>(segments, 128, tuning, isa, 2 * threads);
  const auto& kernels = member_for<S>(talking_heads_forward_table(isa));
  run.workspace = whole_lines(kernels.workspace(args, run.plan));
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

// Whether workers share the keys of each tile of queries: where a strip and sums for each of them
// would leave the shared cache and one of each does not, and where tiles of keys can be dealt out
// evenly. They wait for each other twice a tile.
template <class S>
bool share_keys(const TalkingHeadsArgs<S>& args, const std::vector<AttentionSegment>& segments,
                const TalkingHeadsPlan& plan, int64_t sums, const TalkingHeadsTuning& tuning,
                int threads) {
  if (threads == 1) return false;
  if (tuning.share_keys) return *tuning.share_keys;
  const int64_t strip =
      strip_bytes<S>(plan, args.key_heads + 2 * args.heads, longest(segments).keys);
  const int64_t each = strip + sums * static_cast<int64_t>(sizeof(accumulator_t<S>));
  const int64_t keys = key_bytes(args, segments), cache = tuning.shared_cache_bytes;
  return threads * each + keys > cache && each + keys <= cache &&
         fewest_keys(segments) >= 4 * threads * plan.tile_keys;
}

// Workers that share a segment, and in all.
template <class S>
void plan_teams(const std::vector<AttentionSegment>& segments,
                const TalkingHeadsSumsLayout<S>& layout, const TalkingHeadsTotals<S>& totals,
                const TalkingHeadsTuning& tuning, int threads, TalkingHeadsRun& run) {
  const int64_t tiles = ceil_div(longest(segments).queries, run.plan.tile_queries);
  const int64_t bytes =
      (run.key_sums + run.own_sums) * static_cast<int64_t>(sizeof(accumulator_t<S>));
  const int64_t affordable = std::max<int64_t>(1, tuning.sums_bytes / std::max<int64_t>(1, bytes));
  const int64_t workers = std::min<int64_t>(threads, affordable);
  // Where a sequence has work for all, its keys stay in the shared cache; else sequences are dealt
  // out.
  run.team = std::clamp<int64_t>(tiles / 2, 1, workers);
  int64_t teams = std::max<int64_t>(1, workers / run.team);
  teams = std::min<int64_t>(teams, std::max<size_t>(1, segments.size()));
  const bool shared_bias =
      totals.bias.data != nullptr && layout.bias == 0 && totals.bias.batch_stride == 0;
  if (shared_bias) teams = 1;  // segments add to the same elements
  run.workers = teams * run.team;
}

}  // namespace

template <class S>
TalkingHeadsRun plan_talking_heads_backward(const TalkingHeadsArgs<S>& args,
                                            const std::vector<AttentionSegment>& segments,
                                            const TalkingHeadsTotals<S>& totals,
                                            const TalkingHeadsTuning& tuning, Isa isa,
                                            int threads) {
  TalkingHeadsRun run{};
  const int64_t preferred = key_bytes(args, segments) <= kFewKeys ? 64 : 128;
  const Longest most = longest(segments);
  const TalkingHeadsSumsLayout<S> layout(args, most.keys, totals);
  run.key_sums = layout.of_keys();
  run.own_sums = layout.own();
  run.double_sums = layout.doubles();
  run.plan = tiles_for<S>(segments, preferred, tuning, isa, 1);
  if (share_keys(args, segments, run.plan, run.key_sums, tuning, threads)) {
    run.plan.members = run.team = run.workers = threads;
  } else {
    run.plan = tiles_for<S>(segments, preferred, tuning, isa, 2 * threads);
    plan_teams(segments, layout, totals, tuning, threads, run);
  }
  run.plan.strip_tiles = strip_tiles<S>(run.plan, args.key_heads + 2 * args.heads, most.keys,
                                        strip_limit(tuning, tuning.backward_strip_bytes, threads));
  const auto& kernels = member_for<S>(talking_heads_backward_table(isa));
  run.workspace = whole_lines(kernels.workspace(args, run.plan));
  return run;
}

namespace {

// One backward pass: the workers' sums, in the caller's memory, and what is done with them.
template <class S>
class BackwardRun {
 public:
  using T = accumulator_t<S>;

  explicit BackwardRun(const TalkingHeadsBackwardCall<S>& call)
      : call_(call),
        args_(call.args),
        run_(call.run),
        totals_(call.totals),
        kernels_(member_for<S>(talking_heads_backward_table(call.isa))),
        layout_(call.args, longest(call.segments).keys, call.totals),
        extents_(run_.workers) {
    T* const of_keys = call.memory + run_.workers * run_.workspace;
    T* const own = of_keys + run_.workers / run_.plan.members * run_.key_sums;
    for (int64_t w = 0; w < run_.workers; ++w) {
      double* const doubles = call.doubles + w * run_.double_sums;
      sums_.push_back(layout_.at(of_keys + w / run_.plan.members * run_.key_sums,
                                 own + w * run_.own_sums, doubles, totals_));
      std::fill_n(doubles, run_.double_sums, 0.0);
      std::fill_n(own + w * run_.own_sums, run_.own_sums, T(0));
    }
  }

  // Segments in groups of as many as there are teams.
  void compute() {
    const int64_t team = run_.team, teams = run_.workers / team;
    const int64_t count = static_cast<int64_t>(call_.segments.size());
    for (int64_t first = 0; first < count; first += teams) {
      const int64_t here = std::min(teams, count - first);
      if (run_.plan.members > 1) {
        work_together(call_.segments[first]);
      } else {
        for_workers(here * team, [&](int64_t w) { work(call_.segments[first + w / team], w); });
      }
      for (int64_t t = 0; t < here; ++t) reduce(call_.segments[first + t], t * team);
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

  template <class Body>
  void for_workers(int64_t workers, const Body& body) const {
    parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
      for (int64_t w = begin; w < end; ++w) body(w);
    });
  }

  TalkingHeadsTask<S> task(const AttentionSegment& segment, int64_t tile, int64_t w,
                           bool fresh) const {
    return {args_,
            run_.plan,
            segment,
            call_.gradients,
            sums_[w],
            tile * run_.plan.tile_queries,
            fresh,
            w % run_.plan.members,
            call_.memory + w * run_.workspace,
            run_.workspace};
  }

  // The tiles of one worker, from the last on, which sees the most keys: see `fresh`.
  void work(const AttentionSegment& segment, int64_t w) {
    const int64_t last = count_tiles(segment, run_.plan.tile_queries) - 1 - w % run_.team;
    extents_[w] = seen_keys(segment, last);
    for (int64_t tile = last; tile >= 0; tile -= run_.team) {
      const TalkingHeadsTask<S> own = task(segment, tile, w, tile == last);
      kernels_.values(own);
      kernels_.keys(own);
      kernels_.finish(own);
    }
  }

  // All workers on one tile after the other; they meet between the sweeps and after them.
  void work_together(const AttentionSegment& segment) {
    const int64_t last = count_tiles(segment, run_.plan.tile_queries) - 1;
    extents_[0] = seen_keys(segment, last);
    for (int64_t tile = last; tile >= 0; --tile) {
      for_workers(run_.workers, [&](int64_t w) {
        if (tile < last) kernels_.finish(task(segment, tile + 1, w, false));
        kernels_.values(task(segment, tile, w, tile == last));
      });
      for_workers(run_.workers,
                  [&](int64_t w) { kernels_.keys(task(segment, tile, w, tile == last)); });
    }
    if (last < 0) return;
    for_workers(run_.workers, [&](int64_t w) { kernels_.finish(task(segment, 0, w, false)); });
  }

  int64_t seen_keys(const AttentionSegment& segment, int64_t tile) const {
    if (tile < 0) return 0;
    const int64_t size = run_.plan.tile_queries, query = tile * size;
    return visible_keys(args_.causal, segment, query, std::min(size, segment.queries - query));
  }

  // The gradients of a segment's keys, from the sums of the team that begins with worker `first`.
  void reduce(const AttentionSegment& segment, int64_t first) const {
    parallel_for(0, segment.keys, 64, [&](int64_t begin, int64_t end) {
      kernels_.reduce(args_, segment, begin, end, sums_.data() + first, extents_.data() + first,
                      run_.team / run_.plan.members, call_.key_gradients);
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

  const TalkingHeadsBackwardCall<S>& call_;
  const TalkingHeadsArgs<S>& args_;
  const TalkingHeadsRun& run_;
  const TalkingHeadsTotals<S>& totals_;
  const TalkingHeadsBackward<S>& kernels_;
  TalkingHeadsSumsLayout<S> layout_;
  std::vector<Sums> sums_;
  std::vector<int64_t> extents_;  // keys that each set of sums has seen
};

}  // namespace

template <class S>
void talking_heads_backward(const TalkingHeadsBackwardCall<S>& call) {
  BackwardRun<S> backward(call);
  backward.compute();
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
  template void talking_heads_backward(const TalkingHeadsBackwardCall<S>&);

HEADLOOM_INSTANTIATE(double)
HEADLOOM_INSTANTIATE(float)
HEADLOOM_INSTANTIATE(BFloat16)
HEADLOOM_INSTANTIATE(Half)

}  // namespace headloom::kernels

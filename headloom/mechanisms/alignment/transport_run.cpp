#include "headloom/mechanisms/alignment/transport_run.h"

#include <algorithm>

#include "headloom/base/parallel.h"
#include "headloom/kernels/isa_table.h"
#include "headloom/mechanisms/alignment/workspace.h"

HEADLOOM_ISA_TABLE(TransportTable, transport_table)

namespace headloom {
namespace {

using kernels::TransportArgs;
using kernels::TransportKernels;

template <class S>
const TransportKernels<S>& active_kernels() {
  const kernels::TransportTable& table = kernels::transport_table(kernels::active_isa());
  if constexpr (std::is_same_v<S, double>) {
    return table.f64;
  } else if constexpr (std::is_same_v<S, float>) {
    return table.f32;
  } else if constexpr (std::is_same_v<S, BFloat16>) {
    return table.bf16;
  } else {
    return table.f16;
  }
}

// Enough pieces of work for some ten threads; each split holds a copy of the keys' sums, so there
// are at most kMostSplits, of kLeastQueries queries or more.
int64_t splits_for(int64_t heads, int64_t queries) {
  constexpr int64_t kPieces = 16, kMostSplits = 8, kLeastQueries = 256;
  const int64_t wanted = (kPieces + heads - 1) / heads;
  return std::clamp<int64_t>(std::min(wanted, queries / kLeastQueries), 1, kMostSplits);
}

template <class S>
using Step = void (*)(const TransportArgs<S>&, int64_t head, int64_t split, accumulator_t<S>*,
                      accumulator_t<S>*);
template <class S>
using End = void (*)(const TransportArgs<S>&, int64_t head, accumulator_t<S>*, accumulator_t<S>*);

template <class S>
void run(const TransportArgs<S>& args, int64_t heads, int64_t partial_size, Step<S> step,
         End<S> end) {
  using T = accumulator_t<S>;
  const int64_t workspace_size = active_kernels<S>().workspace(args);
  if (args.splits == 1) {
    parallel_for(0, heads, 1, [&](int64_t begin, int64_t stop) {
      const Workspace<T> workspace(workspace_size), partial(partial_size);
      for (int64_t head = begin; head < stop; ++head) {
        step(args, head, 0, partial.data(), workspace.data());
        end(args, head, partial.data(), workspace.data());
      }
    });
    return;
  }
  const Workspace<T> partials(heads * args.splits * partial_size);
  parallel_for(0, heads * args.splits, 1, [&](int64_t begin, int64_t stop) {
    const Workspace<T> workspace(workspace_size);
    for (int64_t i = begin; i < stop; ++i) {
      step(args, i / args.splits, i % args.splits, partials.data() + i * partial_size,
           workspace.data());
    }
  });
  parallel_for(0, heads, 1, [&](int64_t begin, int64_t stop) {
    const Workspace<T> workspace(workspace_size);
    for (int64_t head = begin; head < stop; ++head) {
      end(args, head, partials.data() + head * args.splits * partial_size, workspace.data());
    }
  });
}

}  // namespace

template <class S>
void transport_forward(TransportArgs<S> args, int64_t batch) {
  const TransportKernels<S>& kernels = active_kernels<S>();
  const int64_t heads = batch * args.heads;
  if (heads == 0) return;
  args.splits = splits_for(heads, args.queries.points);
  run<S>(args, heads, kernels.forward_partial(args), kernels.forward, kernels.forward_end);
}

template <class S>
void transport_backward(TransportArgs<S> args, int64_t batch) {
  const TransportKernels<S>& kernels = active_kernels<S>();
  const int64_t heads = batch * args.heads;
  if (heads == 0) return;
  args.splits = splits_for(heads, args.queries.points);
  run<S>(args, heads, kernels.backward_partial(args), kernels.backward, kernels.backward_end);
}

#define HEADLOOM_INSTANTIATE(S)                                   \
  template void transport_forward(TransportArgs<S> args, int64_t batch); \
  template void transport_backward(TransportArgs<S> args, int64_t batch);
HEADLOOM_INSTANTIATE(double)
HEADLOOM_INSTANTIATE(float)
HEADLOOM_INSTANTIATE(BFloat16)
HEADLOOM_INSTANTIATE(Half)
#undef HEADLOOM_INSTANTIATE

}  // namespace headloom

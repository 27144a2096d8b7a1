#include "headloom/mechanisms/alignment/transport_run.h"

#include <algorithm>

#include "headloom/base/parallel.h"
#include "headloom/kernels/isa_table.h"
#include "headloom/kernels/workspace.h"

HEADLOOM_ISA_TABLE(TransportTable, transport_forward_table)
HEADLOOM_ISA_TABLE(TransportTable, transport_backward_table)

namespace headloom {
namespace {

using kernels::TransportArgs;
using kernels::TransportPass;
using kernels::Workspace;

// Enough pieces of work for some ten threads; each split holds a copy of the keys' sums, so there
// are at most kMostSplits, of kLeastQueries queries or more.
int64_t splits_for(int64_t heads, int64_t queries) {
  constexpr int64_t kPieces = 16, kMostSplits = 8, kLeastQueries = 256;
  const int64_t wanted = (kPieces + heads - 1) / heads;
  return std::clamp<int64_t>(std::min(wanted, queries / kLeastQueries), 1, kMostSplits);
}

template <class S>
void run(const TransportPass<S>& pass, TransportArgs<S> args, int64_t batch) {
  using T = accumulator_t<S>;
  const int64_t heads = batch * args.heads;
  if (heads == 0) return;
  args.splits = splits_for(heads, args.queries.points);
  const int64_t workspace_size = pass.workspace(args), partial_size = pass.partial(args);
  if (args.splits == 1) {
    parallel_for(0, heads, 1, [&](int64_t begin, int64_t stop) {
      const Workspace<T> workspace(workspace_size), partial(partial_size);
      for (int64_t head = begin; head < stop; ++head) {
        pass.range(args, head, 0, partial.data(), workspace.data());
        pass.end(args, head, partial.data(), workspace.data());
      }
    });
    return;
  }
  const Workspace<T> partials(heads * args.splits * partial_size);
  parallel_for(0, heads * args.splits, 1, [&](int64_t begin, int64_t stop) {
    const Workspace<T> workspace(workspace_size);
    for (int64_t i = begin; i < stop; ++i) {
      pass.range(args, i / args.splits, i % args.splits, partials.data() + i * partial_size,
                 workspace.data());
    }
  });
  parallel_for(0, heads, 1, [&](int64_t begin, int64_t stop) {
    const Workspace<T> workspace(workspace_size);
    for (int64_t head = begin; head < stop; ++head) {
      pass.end(args, head, partials.data() + head * args.splits * partial_size, workspace.data());
    }
  });
}

}  // namespace

template <class S>
void transport_forward(const TransportArgs<S>& args, int64_t batch) {
  run(kernels::member_for<S>(kernels::transport_forward_table(kernels::active_isa())), args, batch);
}

template <class S>
void transport_backward(const TransportArgs<S>& args, int64_t batch) {
  run(kernels::member_for<S>(kernels::transport_backward_table(kernels::active_isa())), args,
      batch);
}

#define HEADLOOM_INSTANTIATE(S)                                                 \
  template void transport_forward(const TransportArgs<S>& args, int64_t batch); \
  template void transport_backward(const TransportArgs<S>& args, int64_t batch);
HEADLOOM_INSTANTIATE(double)
HEADLOOM_INSTANTIATE(float)
HEADLOOM_INSTANTIATE(BFloat16)
HEADLOOM_INSTANTIATE(Half)
#undef HEADLOOM_INSTANTIATE

}  // namespace headloom

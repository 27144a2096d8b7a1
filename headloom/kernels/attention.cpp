// Deals out the work of attention.h to threads and adds up what they found.
#include "headloom/kernels/attention.h"

#include <algorithm>
#include <numeric>
#include <type_traits>
#include <vector>

#include "headloom/base/parallel.h"
#include "headloom/kernels/attention_table.h"
#include "headloom/kernels/isa_table.h"
#include "headloom/kernels/workspace.h"

HEADLOOM_ISA_TABLE(AttentionForwardTable, attention_forward_table)
HEADLOOM_ISA_TABLE(AttentionBackwardTable, attention_backward_table)
HEADLOOM_ISA_TABLE(SymmetricForwardTable, symmetric_forward_table)
HEADLOOM_ISA_TABLE(SymmetricBackwardTable, symmetric_backward_table)

namespace headloom::kernels {
namespace {

// A chunk of work below this many multiply-adds costs less than handing it to another thread.
constexpr int64_t kGrainOperations = int64_t{1} << 16;

// Calls body(begin, end, space) on parts of [0, tasks), `space` holding `count` elements of T.
template <class T, class Body>
void with_space(int64_t tasks, int64_t operations_each, int64_t count, const Body& body) {
  const int64_t grain =
      std::max<int64_t>(1, kGrainOperations / std::max<int64_t>(1, operations_each));
  parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
    const Workspace<T> space(count);
    body(begin, end, space.data());
  });
}

template <class S>
int64_t pairs(const AttentionArgs<S>& args) {
  int64_t sum = 0;
  for (int64_t i = 0; i < args.sequence_count; ++i) {
    sum += args.sequences[i].queries * args.sequences[i].keys;
  }
  return sum;
}

// Where the partial sums of a backward pass lie: a slot for each share of each sequence.
template <class S>
struct Partials {
  using T = accumulator_t<S>;
  const AttentionArgs<S>& args;
  int64_t group, key_heads, parts;
  std::vector<int64_t> begin;  // of a sequence's slots
  std::vector<T> sums;         // slots of [keys, D] and [group, keys, Dv]
  std::vector<T> folds;        // [sequence, key head, part, group, D, D]

  Partials(const AttentionGradArgs<S>& grad, int64_t part_count)
      : args(grad.call),
        group(args.k.group),
        key_heads(args.heads / args.k.group),
        parts(part_count) {
    int64_t total = 0;
    for (int64_t i = 0; i < args.sequence_count; ++i) {
      begin.push_back(total);
      if (parts > 1) total += key_heads * parts * slot(i);
    }
    sums.resize(static_cast<std::size_t>(total));
    if (grad.grad_fold) {
      folds.resize(static_cast<std::size_t>(tasks() * group * args.width * args.width));
    }
  }
  int64_t tasks() const { return args.sequence_count * key_heads * parts; }
  int64_t slot(int64_t sequence) const {
    return args.sequences[sequence].keys * (args.width + group * args.value_width);
  }
  AttentionShare<T> share(int64_t task) {
    AttentionShare<T> one{task / parts / key_heads,
                          task / parts % key_heads,
                          task % parts,
                          parts,
                          nullptr,
                          nullptr,
                          nullptr};
    if (parts > 1) {
      const int64_t index = one.key_head * parts + one.part;
      one.grad_k = sums.data() + begin[one.sequence] + index * slot(one.sequence);
      one.grad_v = one.grad_k + args.sequences[one.sequence].keys * args.width;
    }
    if (!folds.empty()) one.grad_fold = folds.data() + task * group * args.width * args.width;
    return one;
  }
};

// to[rows, width] = sum over `parts` of from[part, rows, width]
template <class T, class S>
void add_parts(const T* from, int64_t part_stride, int64_t parts, int64_t rows, int64_t width,
               S* to, int64_t to_stride) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < width; ++j) {
      T sum = 0;
      for (int64_t p = 0; p < parts; ++p) sum += from[p * part_stride + i * width + j];
      to[i * to_stride + j] = S(sum);
    }
  }
}

template <class S>
void gather_parts(const AttentionGradArgs<S>& grad, Partials<S>& partials) {
  const AttentionArgs<S>& args = grad.call;
  const int64_t heads = args.sequence_count * partials.key_heads;
  parallel_for(0, heads, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const auto share = partials.share(i * partials.parts);
      const AttentionSequence& s = args.sequences[share.sequence];
      const int64_t slot = partials.slot(share.sequence), head = share.key_head * partials.group;
      add_parts(share.grad_k, slot, partials.parts, s.keys, args.width,
                grad.grad_k.at(s.batch, head, s.key_begin), grad.grad_k.row_stride);
      for (int64_t g = 0; g < partials.group; ++g) {
        add_parts(share.grad_v + g * s.keys * args.value_width, slot, partials.parts, s.keys,
                  args.value_width, grad.grad_v.at(s.batch, head + g, s.key_begin),
                  grad.grad_v.row_stride);
      }
    }
  });
}

// folds [outer, H, inner, D, D]: sums over outer and inner, in that order. A head's place among the
// key heads and in its group are neighbouring axes only when inner is 1, hence the strides.
template <class T>
void gather_folds(const std::vector<T>& folds, int64_t sequences, int64_t key_heads, int64_t parts,
                  int64_t group, int64_t square, T* grad_fold) {
  for (int64_t head = 0; head < key_heads * group; ++head) {
    T* sum = grad_fold + head * square;
    std::fill(sum, sum + square, T(0));
    for (int64_t s = 0; s < sequences; ++s) {
      for (int64_t p = 0; p < parts; ++p) {
        const int64_t task = (s * key_heads + head / group) * parts + p;
        const T* part = folds.data() + (task * group + head % group) * square;
        for (int64_t i = 0; i < square; ++i) sum[i] += part[i];
      }
    }
  }
}

// Enough parts that the threads are busy alike, few enough that each has tiles of its own.
int64_t parts_for(int64_t heads, int64_t tiles) {
  const int64_t threads = thread_count();
  if (heads == 0 || heads >= 8 * threads) return 1;
  return std::clamp<int64_t>(tiles, 1, threads / std::gcd(heads, threads));
}

}  // namespace

template <class S>
void attention_forward(const AttentionArgs<S>& args) {
  const auto& kernels = member_for<S>(attention_forward_table(active_isa()));
  int64_t tiles = 0;
  for (int64_t i = 0; i < args.sequence_count; ++i) {
    tiles += args.heads * query_tiles(args.sequences[i].queries);
  }
  if (tiles == 0) return;
  const int64_t operations = args.heads * pairs(args) * (args.width + args.value_width) / tiles;
  with_space<accumulator_t<S>>(
      tiles, operations, kernels.space(args),
      [&](int64_t begin, int64_t end, auto* space) { kernels.tiles(args, begin, end, space); });
}

template <class S>
void attention_backward(const AttentionGradArgs<S>& grad) {
  const AttentionArgs<S>& args = grad.call;
  const auto& kernels = member_for<S>(attention_backward_table(active_isa()));
  int64_t tiles = 0;
  for (int64_t i = 0; i < args.sequence_count; ++i) {
    tiles = std::max(tiles, query_tiles(args.sequences[i].queries));
  }
  const int64_t heads = args.sequence_count * (args.heads / args.k.group);
  Partials<S> partials(grad, parts_for(heads, tiles));
  const int64_t tasks = partials.tasks();
  const int64_t operations =
      args.heads * pairs(args) * (args.width + args.value_width) / std::max<int64_t>(1, tasks);
  with_space<accumulator_t<S>>(tasks, 2 * operations, kernels.space(grad),
                               [&](int64_t begin, int64_t end, auto* space) {
                                 for (int64_t i = begin; i < end; ++i) {
                                   kernels.share(grad, partials.share(i), space);
                                 }
                               });
  if (partials.parts > 1) gather_parts(grad, partials);
  if (grad.grad_fold) {
    gather_folds(partials.folds, args.sequence_count, partials.key_heads, partials.parts,
                 partials.group, args.width * args.width, grad.grad_fold);
  }
}

template <class S>
void attention_bias_backward(const AttentionBiasGradArgs<S>& bias) {
  const AttentionArgs<S>& args = bias.call.call;
  const auto& kernels = member_for<S>(attention_backward_table(active_isa()));
  int64_t queries = 0, keys = 0;
  for (int64_t i = 0; i < args.sequence_count; ++i) {
    queries = std::max(queries, args.sequences[i].queries);
    keys = std::max(keys, args.sequences[i].keys);
  }
  // A task owns what it adds to: rows of a tile, or, in a bias without rows, a block of keys.
  const bool rows = bias.queries != 1, columns = bias.keys != 1;
  const int64_t tiles = rows ? query_tiles(queries) : 1;
  const int64_t blocks = rows || !columns ? 1 : (keys + kKeyBlock - 1) / kKeyBlock;
  const int64_t tasks = bias.batches * bias.heads * tiles * blocks;
  if (tasks == 0) return;
  const int64_t operations = args.heads * pairs(args) * (args.width + args.value_width) / tasks;
  with_space<accumulator_t<S>>(
      tasks, operations, kernels.space(bias.call), [&](int64_t begin, int64_t end, auto* space) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t block = i % blocks, tile = i / blocks % tiles, pair = i / blocks / tiles;
          const BiasShare share{pair / bias.heads, pair % bias.heads, tile,
                                blocks == 1 ? 0 : block * kKeyBlock,
                                blocks == 1 ? keys : (block + 1) * kKeyBlock};
          kernels.bias(bias, share, space);
        }
      });
}

template <class S>
void symmetric_forward(const AttentionArgs<S>& args) {
  const auto& kernels = member_for<S>(symmetric_forward_table(active_isa()));
  const int64_t tasks = args.sequence_count * args.heads;
  if (tasks == 0) return;
  const int64_t operations = pairs(args) / args.sequence_count * (args.width + args.value_width);
  with_space<accumulator_t<S>>(tasks, operations, kernels.space(args),
                               [&](int64_t begin, int64_t end, auto* space) {
                                 for (int64_t i = begin; i < end; ++i) {
                                   kernels.head(args, i / args.heads, i % args.heads, space);
                                 }
                               });
}

template <class S>
void symmetric_backward(const AttentionGradArgs<S>& grad) {
  const AttentionArgs<S>& args = grad.call;
  const auto& kernels = member_for<S>(symmetric_backward_table(active_isa()));
  Partials<S> partials(grad, 1);
  const int64_t tasks = partials.tasks();
  const int64_t operations =
      args.heads * pairs(args) * (args.width + args.value_width) / std::max<int64_t>(1, tasks);
  with_space<accumulator_t<S>>(
      tasks, 2 * operations, kernels.space(grad), [&](int64_t begin, int64_t end, auto* space) {
        for (int64_t i = begin; i < end; ++i) {
          const AttentionShare<accumulator_t<S>> one = partials.share(i);
          kernels.heads(grad, one.sequence, one.key_head, one.grad_fold, space);
        }
      });
  if (grad.grad_fold) {
    gather_folds(partials.folds, args.sequence_count, partials.key_heads, 1, partials.group,
                 args.width * args.width, grad.grad_fold);
  }
}

#define HEADLOOM_INSTANTIATE(S)                                           \
  template void attention_forward(const AttentionArgs<S>&);               \
  template void attention_backward(const AttentionGradArgs<S>&);          \
  template void attention_bias_backward(const AttentionBiasGradArgs<S>&); \
  template void symmetric_forward(const AttentionArgs<S>&);               \
  template void symmetric_backward(const AttentionGradArgs<S>&);
HEADLOOM_INSTANTIATE(double)
HEADLOOM_INSTANTIATE(float)
HEADLOOM_INSTANTIATE(BFloat16)
HEADLOOM_INSTANTIATE(Half)
#undef HEADLOOM_INSTANTIATE

}  // namespace headloom::kernels

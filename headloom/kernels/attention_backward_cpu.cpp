#include "headloom/kernels/attention_grad.h"

namespace headloom::kernels::HEADLOOM_ISA {

namespace {

template <class S>
class Backward {
  using T = accumulator_t<S>;

 public:
  Backward(const AttentionGradArgs<S>& grad, T* base)
      : grad_(grad), args_(grad.call), space_{base}, heads_(grad, space_), tile_(grad, space_) {
    const Longest longest = longest_of(args_);
    grad_k_ = space_.take(longest.keys * args_.width);
    grad_v_ = space_.take(longest.keys * args_.value_width);
    grad_q_ = space_.take(kQueryTile * args_.width);
    unfolded_ = space_.take(args_.fold ? kQueryTile * args_.width : 0);
  }

  int64_t space() const { return space_.used; }

  void share(const AttentionShare<T>& share) {
    const AttentionSequence& s = args_.sequences[share.sequence];
    const int64_t D = args_.width, Dv = args_.value_width, group = args_.k.group;
    fill(grad_k_, s.keys * D, T(0));
    for (int64_t i = 0; i < group; ++i) {
      const int64_t head = share.key_head * group + i;
      heads_.enter(s, head);
      fill(grad_v_, s.keys * Dv, T(0));
      grad_fold_ = share.grad_fold ? share.grad_fold + i * D * D : nullptr;
      if (grad_fold_) fill(grad_fold_, D * D, T(0));
      for (int64_t t = share.part; t < query_tiles(s.queries); t += share.parts) {
        const int64_t query = t * kQueryTile;
        tile({s, head, query, least(kQueryTile, s.queries - query)});
      }
      put(grad_v_, s, head, Dv, grad_.grad_v,
          share.grad_v ? share.grad_v + i * s.keys * Dv : nullptr);
    }
    put(grad_k_, s, share.key_head * group, D, grad_.grad_k, share.grad_k);
  }

 private:
  // The sums of a head, to the sums of this share or to where they belong.
  void put(const T* sums, const AttentionSequence& s, int64_t head, int64_t width,
           const HeadRows<S>& to, T* partial) {
    if (partial) {
      copy_rows(sums, width, s.keys, width, partial, width);
    } else {
      copy_rows(sums, width, s.keys, width, to.at(s.batch, head, s.key_begin), to.row_stride);
    }
  }

  void tile(const TileAt& at) {
    const int64_t D = args_.width, Dv = args_.value_width;
    tile_.load(at);
    fill(grad_q_, at.rows * D, T(0));
    for_each_block(args_, at, 0, at.sequence.keys, [&](const Block& block) {
      tile_.differentiate(at, block, heads_, static_cast<T>(args_.scale));
      gemm_tile(GemmArgs<T>{block.keys, Dv, at.rows, tile_.weights, kQueryTile, 1, tile_.grad_rows,
                            Dv, grad_v_ + block.key * Dv, Dv},
                Accumulate{});
      gemm_tile(GemmArgs<T>{block.keys, D, at.rows, tile_.grad_logits, kQueryTile, 1,
                            tile_.queries.folded, D, grad_k_ + block.key * D, D},
                Accumulate{});
      gemm_tile(GemmArgs<T>{at.rows, D, block.keys, tile_.grad_logits, 1, kQueryTile,
                            heads_.keys.at(block.key), heads_.keys.stride, grad_q_, D},
                Accumulate{});
    });
    finish(at);
  }

  void finish(const TileAt& at) {
    const AttentionSequence& s = at.sequence;
    const int64_t D = args_.width;
    const T* found = grad_q_;
    if (args_.fold) {
      if (grad_fold_) {
        gemm_tile(GemmArgs<T>{D, D, at.rows, tile_.queries.rows, 1, D, grad_q_, D, grad_fold_, D},
                  Accumulate{});
      }
      gemm_tile(GemmArgs<T>{at.rows, D, D, grad_q_, D, 1, args_.fold_transposed + at.head * D * D,
                            D, unfolded_, D},
                Assign{});
      found = unfolded_;
    }
    if (grad_.grad_q.data) {
      copy_rows(found, D, at.rows, D, grad_.grad_q.at(s.batch, at.head, s.query_begin + at.query),
                grad_.grad_q.row_stride);
    } else {
      add_rows(found, D, at.rows, D, grad_k_ + at.query * D, D);
    }
  }

  const AttentionGradArgs<S>& grad_;
  const AttentionArgs<S>& args_;
  Space<T> space_;
  GradHeads<S> heads_;
  GradTile<S> tile_;
  T *grad_k_, *grad_v_;    // [keys, D], [keys, Dv]
  T *grad_q_, *unfolded_;  // [kQueryTile, D], of the folded queries and of the queries
  T* grad_fold_ = nullptr;
};

template <class S>
int64_t backward_space(const AttentionGradArgs<S>& args) {
  return Backward<S>(args, nullptr).space();
}

template <class S>
void backward_share(const AttentionGradArgs<S>& args, const AttentionShare<accumulator_t<S>>& share,
                    accumulator_t<S>* space) {
  Backward<S>(args, space).share(share);
}

// Adds the gradient of one block's logits to the bias, summed over what it broadcasts over.
template <class S>
void add_to_bias(const AttentionBiasGradArgs<S>& args, const BiasShare& share, const TileAt& at,
                 const Block& block, const accumulator_t<S>* grad_logits) {
  for (int64_t j = 0; j < at.rows; ++j) {
    const int64_t row = args.queries == 1 ? 0 : at.query + j;
    accumulator_t<S>* sums =
        args.grad_bias + ((share.batch * args.heads + share.head) * args.queries + row) * args.keys;
    for (int64_t i = 0; i < block.keys; ++i) {
      sums[args.keys == 1 ? 0 : block.key + i] += grad_logits[i * kQueryTile + j];
    }
  }
}

template <class S>
void bias_share(const AttentionBiasGradArgs<S>& args, const BiasShare& share,
                accumulator_t<S>* space) {
  const AttentionArgs<S>& call = args.call.call;
  Space<accumulator_t<S>> pieces{space};
  GradHeads<S> heads(args.call, pieces);
  GradTile<S> tile(args.call, pieces);
  for (int64_t i = 0; i < call.sequence_count; ++i) {
    const AttentionSequence& s = call.sequences[i];
    if (args.batches != 1 && s.batch != share.batch) continue;
    const int64_t head_begin = args.heads == 1 ? 0 : share.head;
    const int64_t head_end = args.heads == 1 ? call.heads : share.head + 1;
    const int64_t tile_begin = args.queries == 1 ? 0 : share.tile;
    const int64_t tile_end = args.queries == 1 ? query_tiles(s.queries) : share.tile + 1;
    for (int64_t head = head_begin; head < head_end; ++head) {
      heads.enter(s, head);
      for (int64_t t = tile_begin; t < tile_end; ++t) {
        const int64_t query = t * kQueryTile;
        const TileAt at{s, head, query, least(kQueryTile, s.queries - query)};
        tile.load(at);
        for_each_block(call, at, share.key_begin, share.key_end, [&](const Block& block) {
          tile.differentiate(at, block, heads, 1);
          add_to_bias(args, share, at, block, tile.grad_logits);
        });
      }
    }
  }
}

template <class S>
constexpr AttentionBackwardKernels<S> kKernels{backward_space<S>, backward_share<S>, bias_share<S>};

}  // namespace

extern const AttentionBackwardTable attention_backward_table;
const AttentionBackwardTable attention_backward_table = {kKernels<double>, kKernels<float>,
                                                         kKernels<BFloat16>, kKernels<Half>};

}  // namespace headloom::kernels::HEADLOOM_ISA

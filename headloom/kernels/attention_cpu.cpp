#include "headloom/kernels/attention_tile.h"

namespace headloom::kernels::HEADLOOM_ISA {

namespace {

template <class S>
class Forward {
  using T = accumulator_t<S>;

 public:
  Forward(const AttentionArgs<S>& args, T* base)
      : args_(args),
        space_{base},
        queries_(args, space_),
        logits_(space_.take(kKeyBlock * kQueryTile)),
        extra_(args.bias.data || args.dropout_p > 0 ? space_.take(kKeyBlock * kQueryTile)
                                                    : nullptr),
        out_(space_.take(kQueryTile * args.value_width)),
        out_rows_(space_.take(kQueryTile * args.value_width)) {
    const Longest longest = longest_of(args);
    gathered_k_ = space_.take(gathered_size(args.k, args.width, longest));
    gathered_v_ = space_.take(gathered_size(args.v, args.value_width, longest));
  }

  int64_t space() const { return space_.used; }

  void tiles(int64_t begin, int64_t end) {
    int64_t first = 0;  // of the sequence's tiles
    for (int64_t i = 0; i < args_.sequence_count && first < end; ++i) {
      const AttentionSequence& s = args_.sequences[i];
      const int64_t tiles = query_tiles(s.queries), all = tiles * args_.heads;
      int64_t current = -1;
      for (int64_t t = begin < first ? first : begin; t < least(first + all, end); ++t) {
        const int64_t head = (t - first) / tiles;
        if (head != current) enter(s, head);
        current = head;
        const int64_t query = balanced_tile((t - first) % tiles, tiles) * kQueryTile;
        tile({s, head, query, least(kQueryTile, s.queries - query)});
      }
      first += all;
    }
  }

 private:
  void enter(const AttentionSequence& s, int64_t head) {
    keys_ = head_rows(args_.k, s.batch, head, s.key_begin, s.keys, args_.width,
                      gathers(args_.k, args_.width, s.queries), gathered_k_);
    values_ = head_rows(args_.v, s.batch, head, s.key_begin, s.keys, args_.value_width,
                        gathers(args_.v, args_.value_width, s.queries), gathered_v_);
  }

  void tile(const TileAt& at) {
    const int64_t D = args_.width, Dv = args_.value_width, lanes = lanes_for<T>(at.rows);
    load_queries(args_, at, queries_);
    fill(out_, Dv * kQueryTile, T(0));
    for (Softmax<T>& state : softmax_) state.reset();
    for_each_block(args_, at, 0, at.sequence.keys, [&](const Block& block) {
      gemm_tile(GemmArgs<T>{block.keys, lanes, D, keys_.at(block.key), keys_.stride, 1,
                            queries_.lanes, kQueryTile, logits_, kQueryTile},
                Assign{});
      weigh(at, block, lanes);
      gemm_tile(GemmArgs<T>{Dv, lanes, block.keys, values_.at(block.key), 1, values_.stride,
                            logits_, kQueryTile, out_, kQueryTile},
                Accumulate{});
    });
    store_outputs(args_, at, softmax_, out_, out_rows_);
  }

  // Logits to weights; out to what it is worth beside them.
  void weigh(const TileAt& at, const Block& block, int64_t lanes) {
    if (args_.bias.data) {
      bias_tile(args_, at, block, extra_);
      for (int64_t i = 0; i < block.keys; ++i) {
        add_rows(extra_ + i * kQueryTile, 0, 1, lanes, logits_ + i * kQueryTile, 0);
      }
    }
    hide(block, lanes, -ExpConstants<T>::kInfinity, logits_);
    absorb_block(softmax_, block.keys, lanes, logits_, args_.value_width, out_);
    if (args_.dropout_p > 0) {
      dropout_tile(dropout_at(args_, at, block.key), T(1 / (1 - args_.dropout_p)), block.keys,
                   lanes, extra_, kQueryTile);
      multiply_tile(extra_, block.keys, lanes, logits_);
    }
  }

  const AttentionArgs<S>& args_;
  Space<T> space_;
  QueryTile<T> queries_;
  T* logits_;    // [kKeyBlock, kQueryTile]
  T* extra_;     // the same, of the bias or of the dropout mask
  T* out_;       // [Dv, kQueryTile]
  T* out_rows_;  // [kQueryTile, Dv]
  T *gathered_k_, *gathered_v_;
  Rows<T> keys_, values_;  // of the current head
  Softmax<T> softmax_[kStates<T>];
};

template <class S>
int64_t forward_space(const AttentionArgs<S>& args) {
  return Forward<S>(args, nullptr).space();
}

template <class S>
void forward_tiles(const AttentionArgs<S>& args, int64_t begin, int64_t end,
                   accumulator_t<S>* space) {
  Forward<S>(args, space).tiles(begin, end);
}

template <class S>
constexpr AttentionForwardKernels<S> kKernels{forward_space<S>, forward_tiles<S>};

}  // namespace

extern const AttentionForwardTable attention_forward_table;
const AttentionForwardTable attention_forward_table = {kKernels<double>, kKernels<float>,
                                                       kKernels<BFloat16>, kKernels<Half>};

}  // namespace headloom::kernels::HEADLOOM_ISA

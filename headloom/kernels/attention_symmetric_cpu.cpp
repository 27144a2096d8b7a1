#include "headloom/kernels/attention_symmetric.h"

namespace headloom::kernels::HEADLOOM_ISA {

namespace {

// One head of one sequence: every tile of queries keeps its sums until the last pair that adds to
// them, which is its own turn.
template <class S>
class SymmetricForward {
  using T = accumulator_t<S>;

 public:
  SymmetricForward(const AttentionArgs<S>& args, T* base)
      : args_(args), space_{base}, queries_(args, space_) {
    const Longest longest = longest_of(args);
    const int64_t tiles = query_tiles(longest.keys);
    logits_ = space_.take(kKeyBlock * kQueryTile);
    turned_ = space_.take(kQueryTile * kQueryTile);
    dropout_ = args.dropout_p > 0 ? space_.take(kKeyBlock * kQueryTile) : nullptr;
    outs_ = space_.take(tiles * kQueryTile * args.value_width);
    out_rows_ = space_.take(kQueryTile * args.value_width);
    constexpr int64_t kStateSize = static_cast<int64_t>(sizeof(Softmax<T>) / sizeof(T));
    states_ = reinterpret_cast<Softmax<T>*>(space_.take(tiles * kStates<T> * kStateSize));
    gathered_k_ = space_.take(gathered_size(args.k, args.width, longest));
    gathered_v_ = space_.take(gathered_size(args.v, args.value_width, longest));
  }

  int64_t space() const { return space_.used; }

  void head(const AttentionSequence& s, int64_t head) {
    const int64_t tiles = query_tiles(s.queries);
    keys_ = head_rows(args_.k, s.batch, head, s.key_begin, s.keys, args_.width,
                      gathers(args_.k, args_.width, s.queries), gathered_k_);
    values_ = head_rows(args_.v, s.batch, head, s.key_begin, s.keys, args_.value_width,
                        gathers(args_.v, args_.value_width, s.queries), gathered_v_);
    fill(outs_, tiles * kQueryTile * args_.value_width, T(0));
    for (int64_t i = 0; i < tiles * kStates<T>; ++i) states_[i].reset();
    for (int64_t i = 0; i < tiles; ++i) tile(tile_at(s, head, i));
  }

 private:
  T* out_of(const TileAt& at) const { return outs_ + at.query * args_.value_width; }
  Softmax<T>* states_of(const TileAt& at) const {
    return states_ + at.query / kQueryTile * kStates<T>;
  }

  void tile(const TileAt& at) {
    const int64_t D = args_.width, lanes = lanes_for<T>(at.rows);
    load_queries(args_, at, queries_);
    for_each_later_block(args_, at, [&](const Block& block) {
      gemm_tile(GemmArgs<T>{block.keys, lanes, D, keys_.at(block.key), keys_.stride, 1,
                            queries_.lanes, kQueryTile, logits_, kQueryTile},
                Assign{});
      if (block.key != at.query) serve_later(at, block);
      attend(at, block, logits_);
    });
    store_outputs(args_, at, states_of(at), out_of(at), out_rows_);
  }

  // The block's rows as queries of this tile's rows.
  void serve_later(const TileAt& at, const Block& block) {
    const Block keys = as_keys(args_, at);
    for (int64_t i = 0; i < block.keys; i += kQueryTile) {
      const TileAt later = tile_at(at.sequence, at.head, (block.key + i) / kQueryTile);
      transpose_tile(logits_ + i * kQueryTile, kQueryTile, later.rows, at.rows, turned_,
                     kQueryTile);
      attend(later, keys, turned_);
    }
  }

  // Takes one block of keys into what a tile of queries has gathered; the logits are overwritten.
  void attend(const TileAt& at, const Block& block, T* logits) {
    const int64_t Dv = args_.value_width, lanes = lanes_for<T>(at.rows);
    T* out = out_of(at);
    hide(block, lanes, -ExpConstants<T>::kInfinity, logits);
    absorb_block(states_of(at), block.keys, lanes, logits, Dv, out);
    if (dropout_) {
      dropout_tile(dropout_at(args_, at, block.key), T(1 / (1 - args_.dropout_p)), block.keys,
                   lanes, dropout_, kQueryTile);
      multiply_tile(dropout_, block.keys, lanes, logits);
    }
    gemm_tile(GemmArgs<T>{Dv, lanes, block.keys, values_.at(block.key), 1, values_.stride, logits,
                          kQueryTile, out, kQueryTile},
              Accumulate{});
  }

  const AttentionArgs<S>& args_;
  Space<T> space_;
  QueryTile<T> queries_;
  T* logits_;           // [kKeyBlock, kQueryTile]
  T* turned_;           // [kQueryTile, kQueryTile]
  T* dropout_;          // [kKeyBlock, kQueryTile] or nullptr
  T* outs_;             // [tiles, Dv, kQueryTile]
  T* out_rows_;         // [kQueryTile, Dv]
  Softmax<T>* states_;  // [tiles, kStates]
  T *gathered_k_, *gathered_v_;
  Rows<T> keys_, values_;
};

template <class S>
int64_t forward_space(const AttentionArgs<S>& args) {
  return SymmetricForward<S>(args, nullptr).space();
}

template <class S>
void forward_head(const AttentionArgs<S>& args, int64_t sequence, int64_t head,
                  accumulator_t<S>* space) {
  SymmetricForward<S>(args, space).head(args.sequences[sequence], head);
}

template <class S>
constexpr SymmetricForwardKernels<S> kKernels{forward_space<S>, forward_head<S>};

}  // namespace

extern const SymmetricForwardTable symmetric_forward_table;
const SymmetricForwardTable symmetric_forward_table = {kKernels<double>, kKernels<float>,
                                                       kKernels<BFloat16>, kKernels<Half>};

}  // namespace headloom::kernels::HEADLOOM_ISA

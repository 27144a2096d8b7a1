#pragma once

#include "headloom/kernels/attention_tile.h"

// The half-tile form of attention.h: S = S^T, so that the logits of queries I and keys J, I < J,
// are those of queries J and keys I as well. Products of weights and values and exponentials are
// those of the whole form. What is saved is one of two products for the logits, and in the gradient
// one of the two with the queries: (dS_IJ + dS_JI^T) Q_J is the gradient of Q_I from both.
namespace headloom::kernels::HEADLOOM_ISA {

HEADLOOM_INLINE TileAt tile_at(const AttentionSequence& s, int64_t head, int64_t tile) {
  const int64_t query = tile * kQueryTile;
  return {s, head, query, least(kQueryTile, s.queries - query)};
}

// The block that a tile's rows are when they serve as keys.
template <class S>
HEADLOOM_INLINE Block as_keys(const AttentionArgs<S>& args, const TileAt& at) {
  return block_at(args, at, at.query, at.query + at.rows);
}

// Calls body(block) for the tile's own rows as keys, then for the blocks of later rows.
template <class S, class Body>
HEADLOOM_INLINE void for_each_later_block(const AttentionArgs<S>& args, const TileAt& at,
                                          const Body& body) {
  body(as_keys(args, at));
  for (int64_t key = at.query + at.rows; key < at.sequence.keys; key += kKeyBlock) {
    body(block_at(args, at, key, at.sequence.keys));
  }
}

}  // namespace headloom::kernels::HEADLOOM_ISA

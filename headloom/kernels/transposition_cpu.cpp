#include "headloom/kernels/transposition.h"

#include "headloom/kernels/transpose.h"

namespace headloom::kernels::HEADLOOM_ISA {

namespace {

void transpose_matrix(const TranspositionArgs& args) {
  transpose_tile(args.from, args.from_stride, args.rows, args.columns, args.to, args.to_stride);
}

}  // namespace

extern const TranspositionTable transposition_table;
const TranspositionTable transposition_table = {transpose_matrix};

}  // namespace headloom::kernels::HEADLOOM_ISA

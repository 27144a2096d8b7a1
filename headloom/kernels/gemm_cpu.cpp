#include "headloom/kernels/gemm_tile.h"

namespace headloom::kernels::HEADLOOM_ISA {

namespace {

// A panel of B, kDepth rows of two vectors, and a row block of A stay in the second-level cache.
constexpr int64_t kDepth = 512;

template <class T>
void gemm_in_depth(const GemmArgs<T>& args) {
  GemmArgs<T> part = args;
  int64_t done = 0;
  do {
    const int64_t left = args.k - done;
    part.k = left < kDepth ? left : kDepth;
    part.a = args.a + done * args.a_column_stride;
    part.b = args.b + done * args.b_row_stride;
    if (args.accumulate || done > 0) {
      gemm_tile(part, Accumulate{});
    } else {
      gemm_tile(part, Assign{});
    }
    done += part.k;
  } while (done < args.k);
}

}  // namespace

extern const GemmTable gemm_table;
const GemmTable gemm_table = {gemm_in_depth<float>, gemm_in_depth<double>};

}  // namespace headloom::kernels::HEADLOOM_ISA

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

// A square of the product at a time, its operands on the stack as this set multiplies them.
constexpr int64_t kSquare = 64;

#if defined(HEADLOOM_ISA_avx512bf16)

void gemm_square(const GemmArgs<float, BFloat16>& part, const auto& epilogue) {
  alignas(64) BFloat16 a[kSquare * kSquare], b[kSquare * kSquare];
  GemmArgs<float, BFloat16> pairs = part;
  interleave_rows(part.b, part.b_row_stride, part.k, part.n, b);
  pairs.b = b;
  pairs.b_row_stride = group_stride<BFloat16>(part.n);
  pairs.a_column_stride = 2;
  if (part.a_column_stride != 1) {
    interleave_rows(part.a, part.a_column_stride, part.k, part.m, a);
    pairs.a = a;
    pairs.a_row_stride = 2;
    pairs.a_column_stride = group_stride<BFloat16>(part.m);
  }
  gemm_tile(pairs, epilogue);
}

#else

void gemm_square(const GemmArgs<float, BFloat16>& part, const auto& epilogue) {
  float a[kSquare * kSquare], b[kSquare * kSquare];
  for (int64_t k = 0; k < part.k; ++k) {
    for (int64_t i = 0; i < part.m; ++i) {
      a[k * part.m + i] =
          static_cast<float>(part.a[i * part.a_row_stride + k * part.a_column_stride]);
    }
    for_each_vector<float>(part.n, [&](int64_t j, auto some) HEADLOOM_INLINE_LAMBDA {
      store_at(b + k * part.n + j, some, load_at(part.b + k * part.b_row_stride + j, some));
    });
  }
  gemm_tile(
      GemmArgs<float>{part.m, part.n, part.k, a, 1, part.m, b, part.n, part.c, part.c_row_stride},
      epilogue);
}

#endif

void gemm_in_squares(const GemmArgs<float, BFloat16>& args) {
  const auto each = [](int64_t size, const auto& body) {
    for (int64_t i = 0; i < size; i += kSquare) body(i, size - i < kSquare ? size - i : kSquare);
  };
  each(args.m, [&](int64_t row, int64_t rows) {
    each(args.n, [&](int64_t column, int64_t columns) {
      int64_t done = 0;
      do {
        const int64_t depth = args.k - done < kSquare ? args.k - done : kSquare;
        const GemmArgs<float, BFloat16> part{
            rows,
            columns,
            depth,
            args.a + row * args.a_row_stride + done * args.a_column_stride,
            args.a_row_stride,
            args.a_column_stride,
            args.b + done * args.b_row_stride + column,
            args.b_row_stride,
            args.c + row * args.c_row_stride + column,
            args.c_row_stride};
        args.accumulate || done > 0 ? gemm_square(part, Accumulate{}) : gemm_square(part, Assign{});
        done += depth;
      } while (done < args.k);
    });
  });
}

}  // namespace

extern const GemmTable gemm_table;
const GemmTable gemm_table = {gemm_in_depth<float>, gemm_in_depth<double>, gemm_in_squares};

}  // namespace headloom::kernels::HEADLOOM_ISA

#pragma once

#include <type_traits>

#include "headloom/base/numeric.h"
#include "headloom/kernels/isa.h"

// How a table of kernels is reached at run time. A kernel file defines, once per instruction set,
//
//   namespace headloom::kernels::HEADLOOM_ISA {
//   extern const GemmTable gemm_table;
//   const GemmTable gemm_table = {...};
//   }
//
// an ordinary file writes HEADLOOM_ISA_TABLE(GemmTable, gemm_table), which defines
// headloom::kernels::gemm_table(Isa), and a header declares that function. The type is named as
// seen from headloom::kernels, or in full. For files that are compiled for kAvx512Bf16 too (see
// headloom_add_kernels in cmake/) it is HEADLOOM_BF16_ISA_TABLE.
#if defined(HEADLOOM_HAS_avx2)
#define HEADLOOM_IF_AVX2(...) __VA_ARGS__
#else
#define HEADLOOM_IF_AVX2(...)
#endif
#if defined(HEADLOOM_HAS_avx512)
#define HEADLOOM_IF_AVX512(...) __VA_ARGS__
#else
#define HEADLOOM_IF_AVX512(...)
#endif
// Compiled whenever avx512 is.
#define HEADLOOM_IF_AVX512BF16 HEADLOOM_IF_AVX512

#define HEADLOOM_DECLARE_TABLE(isa, Table, table) \
  namespace headloom::kernels::isa {              \
  extern const Table table;                       \
  }

#define HEADLOOM_DEFINE_TABLE(Table, table, bf16_set)              \
  HEADLOOM_DECLARE_TABLE(baseline, Table, table)                   \
  HEADLOOM_IF_AVX2(HEADLOOM_DECLARE_TABLE(avx2, Table, table))     \
  HEADLOOM_IF_AVX512(HEADLOOM_DECLARE_TABLE(avx512, Table, table)) \
  namespace headloom::kernels {                                    \
  const Table& table(Isa isa) {                                    \
    switch (isa) {                                                 \
      case Isa::kBaseline:                                         \
        return baseline::table;                                    \
      case Isa::kAvx2:                                             \
        HEADLOOM_IF_AVX2(return avx2::table;)                      \
        break;                                                     \
      case Isa::kAvx512:                                           \
        HEADLOOM_IF_AVX512(return avx512::table;)                  \
        break;                                                     \
      case Isa::kAvx512Bf16:                                       \
        HEADLOOM_IF_AVX512BF16(return bf16_set::table;)            \
        break;                                                     \
    }                                                              \
    refuse_isa(isa);                                               \
  }                                                                \
  }

#define HEADLOOM_ISA_TABLE(Table, table) HEADLOOM_DEFINE_TABLE(Table, table, avx512)

#define HEADLOOM_BF16_ISA_TABLE(Table, table)                              \
  HEADLOOM_IF_AVX512BF16(HEADLOOM_DECLARE_TABLE(avx512bf16, Table, table)) \
  HEADLOOM_DEFINE_TABLE(Table, table, avx512bf16)

namespace headloom::kernels {

// The member of a table for an element type; tables of all types name them f64, f32, bf16 and f16.
template <class S, class Table>
const auto& member_for(const Table& table) {
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

// Reports an instruction set that was not compiled in or that this processor lacks.
[[noreturn]] void refuse_isa(Isa isa);

}  // namespace headloom::kernels

#pragma once

#include <cstdint>

#include "headloom/base/numeric.h"
#include "headloom/kernels/isa.h"

// The bricks of simd.h, exp.h and transpose.h over whole arrays, for ordinary code at run time.
// Arrays may lie at any address of their type and be of any length; nothing beyond them is touched.
namespace headloom::kernels {

// The largest relative errors of exp2 and exp where the result is a normal number.
inline constexpr double kExp2ErrorF32 = 2.0e-7, kExp2ErrorF64 = 3e-16;
inline constexpr double kExpErrorF32 = 1.0e-7, kExpErrorF64 = 3e-16;

// The largest errors of log2, as a share of max(1, |log2 x|).
inline constexpr double kLog2ErrorF32 = 1.5e-7, kLog2ErrorF64 = 4e-16;

struct VectorMathTable {
  int width_f32;  // lanes of float

  // y[i] = 2^x[i] and e^x[i]; y may be x. Special values: exp.h.
  void (*exp2_f32)(const float* x, float* y, int64_t length);
  void (*exp2_f64)(const double* x, double* y, int64_t length);
  void (*exp_f32)(const float* x, float* y, int64_t length);
  void (*exp_f64)(const double* x, double* y, int64_t length);

  // Conversions between storage types; to two bytes, rounding to nearest even.
  void (*widen_bf16)(const BFloat16* x, float* y, int64_t length);
  void (*widen_f16)(const Half* x, float* y, int64_t length);
  void (*narrow_bf16)(const float* x, BFloat16* y, int64_t length);
  void (*narrow_f16)(const float* x, Half* y, int64_t length);

  // 0 for an empty array.
  float (*sum_f32)(const float* x, int64_t length);
  double (*sum_f64)(const double* x, int64_t length);
  // -inf for an empty array; NaN elements are passed over.
  float (*max_f32)(const float* x, int64_t length);
  double (*max_f64)(const double* x, int64_t length);

  // to[columns, rows] = factor * transpose of from[rows, columns]; strides of rows, in elements.
  void (*transpose_f32)(const float* from, int64_t from_stride, int64_t rows, int64_t columns,
                        float* to, int64_t to_stride, float factor);
  void (*transpose_f64)(const double* from, int64_t from_stride, int64_t rows, int64_t columns,
                        double* to, int64_t to_stride, double factor);
  void (*transpose_bf16_f32)(const BFloat16* from, int64_t from_stride, int64_t rows,
                             int64_t columns, float* to, int64_t to_stride, float factor);
  void (*transpose_f32_f16)(const float* from, int64_t from_stride, int64_t rows, int64_t columns,
                            Half* to, int64_t to_stride, float factor);

  // y[i] = log2(x[i]) for positive normal x and 0; y may be x.
  void (*log2_f32)(const float* x, float* y, int64_t length);
  void (*log2_f64)(const double* x, double* y, int64_t length);
};

// The kernels of one instruction set; refuses one that does not run here.
const VectorMathTable& vector_math_table(Isa isa);

}  // namespace headloom::kernels

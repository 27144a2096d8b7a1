#include "headloom/kernels/gemm.h"

#include "headloom/kernels/isa_table.h"

HEADLOOM_BF16_ISA_TABLE(GemmTable, gemm_table)

namespace headloom::kernels {

void gemm(const GemmArgs<float>& args) {
  gemm_table(active_isa()).f32(args);
}
void gemm(const GemmArgs<double>& args) {
  gemm_table(active_isa()).f64(args);
}
void gemm(const GemmArgs<float, BFloat16>& args) {
  gemm_table(active_isa()).bf16(args);
}

}  // namespace headloom::kernels

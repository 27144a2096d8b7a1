#include "headloom/kernels/isa.h"

#include <algorithm>
#include <atomic>

#include "headloom/base/check.h"
#include "headloom/kernels/isa_table.h"

namespace headloom::kernels {

namespace {

// The levels x86-64-v3 and x86-64-v4, feature by feature as far as the kernels use them; the
// compiler's run-time library asks the operating system as well whether it saves the registers.
bool runs_here(Isa isa) {
  switch (isa) {
    case Isa::kBaseline:
      return true;
    case Isa::kAvx2:
      HEADLOOM_IF_AVX2(return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                                  __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi") &&
                                  __builtin_cpu_supports("bmi2");)
      return false;
    case Isa::kAvx512:
      HEADLOOM_IF_AVX512(
          return runs_here(Isa::kAvx2) && __builtin_cpu_supports("avx512f") &&
                     __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
                     __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");)
      return false;
    case Isa::kAvx512Bf16:
      HEADLOOM_IF_AVX512BF16(return runs_here(Isa::kAvx512) &&
                                        __builtin_cpu_supports("avx512bf16");)
      return false;
  }
  return false;
}

std::atomic<Isa>& chosen() {
  static std::atomic<Isa> isa{best_isa()};
  return isa;
}

}  // namespace

const char* name(Isa isa) {
  switch (isa) {
    case Isa::kBaseline:
      return "baseline";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Bf16:
      return "avx512bf16";
  }
  return "unknown";
}

std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
  for (Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16}) {
    if (runs_here(isa)) {
      isas.push_back(isa);
    }
  }
  return isas;
}

Isa best_isa() {
  static const Isa best = available_isas().back();
  return best;
}

Isa active_isa() {
  return chosen().load(std::memory_order_relaxed);
}

void use_isa(Isa isa) {
  if (!runs_here(isa)) {
    refuse_isa(isa);
  }
  chosen().store(isa, std::memory_order_relaxed);
}

void refuse_isa(Isa isa) {
  std::string here;
  for (Isa available : available_isas()) {
    here += here.empty() ? name(available) : std::string(", ") + name(available);
  }
  fail("kernels", "an instruction set that this build and this processor have: " + here, name(isa));
}

}  // namespace headloom::kernels

#pragma once

#include <string>
#include <vector>

// Kernel files (*_cpu.cpp) are compiled once per instruction set with HEADLOOM_ISA set to its name;
// everything in them lives in headloom::kernels::HEADLOOM_ISA and is reached through a table of
// function pointers that is picked at run time.
namespace headloom::kernels {

// kAvx512Bf16 adds products of bfloat16 pairs. Only files that multiply bfloat16 are compiled for
// it; the others' kernels of that set are those of kAvx512.
enum class Isa { kBaseline, kAvx2, kAvx512, kAvx512Bf16 };

const char* name(Isa isa);

// The best set that was compiled in and that this processor has.
Isa best_isa();
// Every set that runs here, worst first; tests and benchmarks go through all of them.
std::vector<Isa> available_isas();

// The set in use: best_isa() unless use_isa() chose another.
Isa active_isa();
// Refuses a set that does not run here.
void use_isa(Isa isa);

}  // namespace headloom::kernels

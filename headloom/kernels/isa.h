#pragma once

#include <string>
#include <vector>

// Kernel files (*_cpu.cpp) are compiled once per instruction set with HEADLOOM_ISA set to its name;
// everything in them lives in headloom::kernels::HEADLOOM_ISA and is reached through a table of
// function pointers that is picked at run time.
namespace headloom::kernels {

enum class Isa { kBaseline, kAvx2, kAvx512 };

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

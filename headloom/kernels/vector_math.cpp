#include "headloom/kernels/vector_math.h"

#include "headloom/kernels/isa_table.h"

HEADLOOM_ISA_TABLE(VectorMathTable, vector_math_table)

#include "headloom/kernels/transposition.h"

#include "headloom/kernels/isa_table.h"

HEADLOOM_ISA_TABLE(TranspositionTable, transposition_table)

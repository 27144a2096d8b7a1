#include "headloom/kernels/cross_entropy.h"

#include "headloom/kernels/isa_table.h"

HEADLOOM_ISA_TABLE(CrossEntropyTable, cross_entropy_table)

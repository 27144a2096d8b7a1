#include "headloom/kernels/dropout.h"

#include "headloom/kernels/isa_table.h"

HEADLOOM_ISA_TABLE(DropoutTable, dropout_table)

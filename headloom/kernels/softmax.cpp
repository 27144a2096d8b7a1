#include "headloom/kernels/softmax.h"

#include "headloom/kernels/isa_table.h"

HEADLOOM_ISA_TABLE(SoftmaxTable, softmax_table)

#include "headloom/mechanisms/light_conv/light_conv_kernels.h"

#include "headloom/kernels/isa_table.h"

HEADLOOM_ISA_TABLE(ConvForwardTable, conv_forward_table)
HEADLOOM_ISA_TABLE(ConvBackwardTable, conv_backward_table)

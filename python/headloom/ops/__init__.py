"""The operators as functions of tensors.

Conventions. B batch, H heads, T time, D width of a head, C channels, K kernel width. Dtypes float64,
float32, bfloat16 and float16; half types accumulate in float32. Strides are free. A
``key_padding_mask`` is bool and true where a position is padding. Packed batches have B = 1 and hold
their sequences one after the other along time; ``cu_seqlens`` holds the boundaries, from 0 to T. A
position with nothing to attend gets zeros and zero gradient. With dropout, ``seed`` (a 0-dim int64
tensor) fixes the mask; without one it is drawn from torch's default generator. Bad arguments raise a
RuntimeError that names the operator, what was expected and what was found.
"""

from headloom.ops._refusals import naming_itself
from headloom.ops.alignment import (
    conditional_transport,
    maximum_mean_discrepancy,
    sinkhorn_divergence,
)
from headloom.ops.dot_product import dot_product_attention
from headloom.ops.h_transformer import (
    h_attention,
    h_attention_sharded,
    h_attention_weights,
)
from headloom.ops.light_conv import dynamic_conv, light_conv
from headloom.ops.symmetric import nearest_pairwise, ordinary_projections, symmetric_attention
from headloom.ops.talking_heads import talking_heads_attention

__all__ = [
    "conditional_transport",
    "dot_product_attention",
    "dynamic_conv",
    "h_attention",
    "h_attention_sharded",
    "h_attention_weights",
    "light_conv",
    "maximum_mean_discrepancy",
    "nearest_pairwise",
    "ordinary_projections",
    "sinkhorn_divergence",
    "symmetric_attention",
    "talking_heads_attention",
]

for _name in __all__:
    globals()[_name] = naming_itself(globals()[_name])

import torch

import headloom
from examples.example import BOUNDS, SEED, Example, padding


def _attention(id, shape, **options):
    return Example(
        f"h_attention-{id}",
        headloom.ops.h_attention,
        "h_attention",
        3 * [shape],
        {"block_size": 2, **options},
    )


_SELF = (1, 2, 11, 2)

EXAMPLES = [
    _attention("self", (2, 1, 11, 2)),
    _attention("causal", _SELF, causal=True),
    _attention("short", (1, 2, 4, 3), scale=0.4),
    _attention("padding", (2, 1, 11, 2), key_padding_mask=padding(2, 11)),
    _attention("bias", _SELF, bias=torch.linspace(-1, 1, 14).view(2, 7).double()),
    _attention("fine-center", _SELF, query_mode="fine", center_keys=True),
    _attention("dropout", _SELF, dropout_p=0.4, seed=SEED, causal=True),
    _attention("packed", (1, 2, 6, 4), cu_seqlens=BOUNDS),
]

import torch

import headloom
from examples.example import BOUNDS, SEED, Example, padding


def _attention(id, q, k, v, **options):
    return Example(
        f"dot_product-{id}",
        headloom.ops.dot_product_attention,
        "dot_product_attention",
        [q, k, v],
        options,
    )


_Q = (2, 2, 5, 4)

EXAMPLES = [
    _attention("self", _Q, _Q, _Q),
    _attention("causal", _Q, _Q, _Q, causal=True),
    _attention("cross", (2, 2, 3, 4), _Q, (2, 2, 5, 3)),
    _attention("causal-decode", (2, 2, 3, 4), _Q, _Q, causal=True),
    _attention("padding", _Q, _Q, _Q, key_padding_mask=padding(2, 5)),
    _attention("bias", _Q, _Q, _Q, bias=torch.linspace(-1, 1, 50).view(2, 5, 5).double()),
    _attention("dropout", _Q, _Q, _Q, dropout_p=0.4, seed=SEED),
    _attention(
        "packed",
        *3 * [(1, 2, 6, 4)],
        causal=True,
        cu_seqlens_q=BOUNDS,
        cu_seqlens_k=BOUNDS,
    ),
]

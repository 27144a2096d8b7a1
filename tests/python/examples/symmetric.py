import headloom
from examples.example import BOUNDS, SEED, Example, padding


def _attention(id, *shapes, **options):
    return Example(
        f"symmetric-{id}",
        headloom.ops.symmetric_attention,
        "symmetric_attention",
        list(shapes),
        options,
    )


_Q = (2, 2, 5, 4)
_A = (2, 4, 4)

EXAMPLES = [
    _attention("plain", _Q, _Q),
    _attention("pairwise", _Q, (2, 2, 5, 3), _A),
    _attention("causal", _Q, _Q, _A, causal=True),
    _attention("constrained", _Q, _Q, _A, symmetrize=True),
    _attention("shared-heads", (2, 1, 5, 4), _Q, _A),
    _attention("padding", _Q, _Q, _A, key_padding_mask=padding(2, 5)),
    _attention("half-tiles", (1, 2, 67, 2), (1, 2, 67, 2)),
    _attention("dropout", _Q, _Q, _A, dropout_p=0.4, seed=SEED),
    _attention("packed", (1, 2, 6, 4), (1, 2, 6, 4), _A, cu_seqlens=BOUNDS),
]

import headloom
from examples.example import BOUNDS, SEED, Example, padding


def _talk(id, q, k, v, *projections, **options):
    """``options`` that are shapes become differentiable tensors."""
    dynamic = {name: value for name, value in options.items() if isinstance(value, tuple)}
    fixed = {name: value for name, value in options.items() if name not in dynamic}

    def call(*tensors, **keywords):
        front = 3 + len(projections)
        named = dict(zip(dynamic, tensors[front:], strict=True))
        return headloom.ops.talking_heads_attention(*tensors[:front], **named, **keywords)

    return Example(
        f"talking_heads-{id}",
        call,
        "talking_heads_attention",
        [q, k, v, *projections, *dynamic.values()],
        fixed,
    )


_Q = (2, 2, 5, 4)
_V = (2, 4, 5, 3)
_MIX = ((2, 3), (3, 4))

EXAMPLES = [
    _talk("self", _Q, _Q, _V, *_MIX),
    _talk("causal", _Q, _Q, _V, *_MIX, causal=True),
    _talk("logits-only", _Q, _Q, (2, 3, 5, 4), (2, 3)),
    _talk("padding", _Q, _Q, _V, *_MIX, key_padding_mask=padding(2, 5)),
    _talk("bias", _Q, _Q, _V, *_MIX, bias=(3, 5, 5)),
    _talk("relative-bias", _Q, _Q, _V, *_MIX, relative_bias=(3, 9), causal=True),
    _talk("dynamic", _Q, _Q, _V, *_MIX, x2l=(2, 5, 2, 3), m2w=(2, 5, 3, 4)),
    _talk("grouped", _Q, _Q, _V, (2, 1, 2), (2, 2, 2)),
    _talk("dropout-per-key", _Q, _Q, _V, *_MIX, dropout_p=0.4, dropout_site="per_key", seed=SEED),
    _talk(
        "packed",
        *2 * [(1, 2, 6, 4)],
        (1, 4, 6, 3),
        *_MIX,
        causal=True,
        cu_seqlens_q=BOUNDS,
        cu_seqlens_k=BOUNDS,
    ),
]

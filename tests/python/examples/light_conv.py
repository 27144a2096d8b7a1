import headloom
from examples.example import BOUNDS, SEED, Example, padding


def _light(id, x, weight, **options):
    return Example(f"light_conv-{id}", headloom.ops.light_conv, "light_conv", [x, weight], options)


def _dynamic(id, x, logits, **options):
    return Example(
        f"dynamic_conv-{id}", headloom.ops.dynamic_conv, "dynamic_conv", [x, logits], options
    )


EXAMPLES = [
    _light("same", (2, 6, 4), (2, 3)),
    _light("causal-wide", (2, 4, 4), (2, 7), padding="causal"),
    _light("raw-even", (2, 6, 4), (4, 4), padding=1, weight_softmax=False),
    _light("padding", (2, 6, 4), (2, 3), key_padding_mask=padding(2, 6)),
    _light("dropconnect", (2, 6, 4), (2, 3), weight_dropout=0.3, seed=SEED),
    _light(
        "dropconnect-positions",
        (2, 6, 4),
        (2, 3),
        weight_dropout=0.3,
        dropconnect="per_position",
        seed=SEED,
    ),
    _light("packed", (1, 6, 4), (2, 3), cu_seqlens=BOUNDS),
    _dynamic("same", (2, 6, 4), (2, 6, 2, 3)),
    _dynamic("causal-wide", (2, 4, 4), (2, 4, 2, 7), padding="causal"),
    _dynamic("renorm", (2, 6, 4), (2, 6, 2, 3), renorm_padding=True),
    _dynamic("padding", (2, 6, 4), (2, 6, 2, 3), key_padding_mask=padding(2, 6), padding="causal"),
    _dynamic("dropconnect", (2, 6, 4), (2, 6, 2, 3), weight_dropout=0.3, seed=SEED),
    _dynamic("packed", (1, 6, 4), (1, 6, 2, 3), cu_seqlens=BOUNDS, padding="causal"),
]

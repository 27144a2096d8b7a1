"""Every operator with arguments that exercise it, for the checks that all operators pass."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

import headloom


@dataclass
class Example:
    """Differentiable ``tensors`` in float64, and the keyword arguments of one call."""

    id: str
    function: Callable
    name: str  # of the dispatcher's operator
    shapes: list[tuple[int, ...]]
    options: dict = field(default_factory=dict)

    def tensors(self, dtype=torch.float64):
        generator = torch.Generator().manual_seed(1)
        return [
            torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
            for shape in self.shapes
        ]

    def __call__(self, *tensors):
        return self.function(*tensors, **self.options)


def _padding(batch, length):
    mask = torch.zeros(batch, length, dtype=torch.bool)
    mask[0, 1] = True  # a hole
    mask[-1, length - 2 :] = True
    return mask


def _attention(id, q, k, v, **options):
    return Example(
        f"dot_product-{id}",
        headloom.ops.dot_product_attention,
        "dot_product_attention",
        [q, k, v],
        options,
    )


def _light(id, x, weight, **options):
    return Example(f"light_conv-{id}", headloom.ops.light_conv, "light_conv", [x, weight], options)


def _dynamic(id, x, logits, **options):
    return Example(
        f"dynamic_conv-{id}", headloom.ops.dynamic_conv, "dynamic_conv", [x, logits], options
    )


_BOUNDS = torch.tensor([0, 2, 2, 6])
_SEED = torch.tensor(7)
_Q = (2, 2, 5, 4)

EXAMPLES = [
    _attention("self", _Q, _Q, _Q),
    _attention("causal", _Q, _Q, _Q, causal=True),
    _attention("cross", (2, 2, 3, 4), _Q, (2, 2, 5, 3)),
    _attention("causal-decode", (2, 2, 3, 4), _Q, _Q, causal=True),
    _attention("padding", _Q, _Q, _Q, key_padding_mask=_padding(2, 5)),
    _attention("bias", _Q, _Q, _Q, bias=torch.linspace(-1, 1, 50).view(2, 5, 5).double()),
    _attention("dropout", _Q, _Q, _Q, dropout_p=0.4, seed=_SEED),
    _attention(
        "packed",
        *3 * [(1, 2, 6, 4)],
        causal=True,
        cu_seqlens_q=_BOUNDS,
        cu_seqlens_k=_BOUNDS,
    ),
    _light("same", (2, 6, 4), (2, 3)),
    _light("causal-wide", (2, 4, 4), (2, 7), padding="causal"),
    _light("raw-even", (2, 6, 4), (4, 4), padding=1, weight_softmax=False),
    _light("padding", (2, 6, 4), (2, 3), key_padding_mask=_padding(2, 6)),
    _light("dropconnect", (2, 6, 4), (2, 3), weight_dropout=0.3, seed=_SEED),
    _light(
        "dropconnect-positions",
        (2, 6, 4),
        (2, 3),
        weight_dropout=0.3,
        dropconnect="per_position",
        seed=_SEED,
    ),
    _light("packed", (1, 6, 4), (2, 3), cu_seqlens=_BOUNDS),
    _dynamic("same", (2, 6, 4), (2, 6, 2, 3)),
    _dynamic("causal-wide", (2, 4, 4), (2, 4, 2, 7), padding="causal"),
    _dynamic("renorm", (2, 6, 4), (2, 6, 2, 3), renorm_padding=True),
    _dynamic("padding", (2, 6, 4), (2, 6, 2, 3), key_padding_mask=_padding(2, 6), padding="causal"),
    _dynamic("dropconnect", (2, 6, 4), (2, 6, 2, 3), weight_dropout=0.3, seed=_SEED),
    _dynamic("packed", (1, 6, 4), (1, 6, 2, 3), cu_seqlens=_BOUNDS, padding="causal"),
]

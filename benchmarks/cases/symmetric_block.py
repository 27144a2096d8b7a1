"""The whole attention block, projections included, against the standard block on torch's attention.

The standard block gets the projections that make it the same function: those that a pairwise model
exports (for the plain symmetric form, the same one twice). Folding the coefficients into a weight costs
it 2 C C D operations a call, under 2 % here.
"""

import torch
from torch.nn.functional import linear, scaled_dot_product_attention

import headloom
from harness import Case

H, D = 12, 64
C = H * D


def split(x):
    return x.unflatten(-1, (H, D)).transpose(1, 2)


def merge(x):
    return x.transpose(1, 2).flatten(2)


def ours(x, shared, value, out, pairwise=None):
    mixed = headloom.ops.symmetric_attention(
        split(linear(x, shared)), split(linear(x, value)), pairwise
    )
    return linear(merge(mixed), out)


def standard(x, shared, value, out, pairwise=None):
    query = shared
    if pairwise is not None:
        query = (pairwise.mT @ shared.unflatten(0, (H, D))).flatten(0, 1)
    mixed = scaled_dot_product_attention(
        split(linear(x, query)), split(linear(x, shared)), split(linear(x, value))
    )
    return linear(merge(mixed), out)


def case(form, batch, length, quick=False):
    pairwise = form == "pairwise"

    def inputs():
        weights = [torch.randn(C, C) / C**0.5 for _ in range(3)]
        coefficients = [torch.randn(H, D, D) / D**0.5] * pairwise
        return [torch.randn(batch, length, C), *weights, *coefficients]

    tokens = batch * length
    attention = 2 * tokens * C * (length * (2 if pairwise else 1.5) + (D if pairwise else 0))
    return Case(
        mechanism="symmetric_block",
        name=f"{form} B{batch} T{length} C{C}",
        inputs=inputs,
        headloom=ours,
        peers={"standard": standard},
        compiled="standard",
        forward_flops=6 * tokens * C * C + attention,
        quick=quick,
    )


def cases():
    return [
        case(form, batch, length, quick=length == 128)
        for form in ("pairwise", "symmetric")
        for batch, length in ((4, 128), (4, 512), (1, 2048))
    ]

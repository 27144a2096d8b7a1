"""Symmetric and pairwise attention; the peer that users pick is torch's own, given query and key."""

import math

import torch
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import scaled_dot_product_attention

import headloom
from cases.lengths import LENGTHS
from harness import Case


def composition(q, v, pairwise=None):
    folded = q if pairwise is None else q @ pairwise
    return (folded @ q.mT / math.sqrt(q.size(-1))).softmax(-1) @ v


def folded_sdpa(q, v, pairwise):
    return scaled_dot_product_attention(q @ pairwise, q, v)


def shared_flex(q, v):
    return flex_attention(q, q, v)


def ours_whole(q, v):
    """Our own kernel without the half-tile form."""
    return headloom.ops.dot_product_attention(q, q, v)


def case(form, batch, heads, length, width, dtypes, quick=False):
    pairwise = form == "pairwise"
    q = batch * heads * length * width

    def inputs():
        tensors = [torch.randn(batch, heads, length, width) for _ in range(2)]
        # With N(0, 1) coefficients single weights would decide every row, on either side.
        return tensors + [torch.randn(heads, width, width) / 8] * pairwise

    peers = {"composition": composition, "sdpa": folded_sdpa}
    if not pairwise:
        peers["sdpa"] = lambda q, v: scaled_dot_product_attention(q, q, v)
    return Case(
        mechanism="symmetric",
        name=f"{form} B{batch} H{heads} T{length} D{width}",
        inputs=inputs,
        headloom=headloom.ops.symmetric_attention,
        peers=peers,
        # Not something that a user would pick instead: it shows what half of the tiles are worth.
        rivals={} if pairwise else {"whole tiles": ours_whole},
        compiled="composition",
        # Its lowering for the processor fails on a query that is a product made in the compiled function.
        flex=None if pairwise else shared_flex,
        # What the mathematics needs: half of the scores where they are symmetric.
        forward_flops=(2 * q * width if pairwise else 0) + (4 if pairwise else 3) * q * length,
        dtypes=dtypes,
        quick=quick,
        length=length,
    )


def cases():
    single, both = [torch.float32], [torch.float32, torch.bfloat16]
    sizes = [(4, 128, both), (4, 512, both), (1, 2048, single), (1, 4096, single)]
    return [
        case(form, batch, 12, length, 64, dtypes, quick=length == 128)
        for form in ("pairwise", "symmetric")
        for batch, length, dtypes in sizes
    ]


def scaling():
    return [case("symmetric", 1, 12, length, 64, [torch.float32]) for length in LENGTHS]

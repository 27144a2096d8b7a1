"""Conditional transport; the peers are the compositions that a user would write."""

import torch

import headloom
from cases.lengths import LENGTHS
from harness import Case


def composed(u, v, f, g):
    logits = u @ v.mT
    cost = 1 - f @ g.mT
    forth = (logits.softmax(-1) * cost).sum(-1).mean(-1)
    back = (logits.softmax(-2) * cost).sum(-2).mean(-1)
    return (forth + back) / 2


def shared_exponential(u, v, f, g):
    """One exponential a pair, as the kernel has it: logits small enough to need no maximum."""
    e = (u @ v.mT).exp()
    weighted = e * (1 - f @ g.mT)
    forth = (weighted.sum(-1) / e.sum(-1)).mean(-1)
    back = (weighted.sum(-2) / e.sum(-2)).mean(-1)
    return (forth + back) / 2


def as_attention(u, v, f, g):
    """Two calls of fused attention with the roles exchanged."""
    attend = torch.nn.functional.scaled_dot_product_attention
    forth = (f * attend(u, v, g, scale=1.0)).sum(-1).mean(-1)
    back = (g * attend(v, u, f, scale=1.0)).sum(-1).mean(-1)
    return 1 - (forth + back) / 2


def unit(*shape):
    x = torch.randn(*shape)
    return x / x.norm(dim=-1, keepdim=True)


def case(batch, heads, length, width, quick=False):
    shape = (batch, heads, length, width)
    return Case(
        mechanism="conditional_transport",
        name=f"B{batch} H{heads} N{length} r{width} p{width}",
        inputs=lambda: (
            [torch.randn(shape) / width**0.5, torch.randn(shape) / width**0.5]
            + [unit(*shape), unit(*shape)]
        ),
        headloom=headloom.ops.conditional_transport,
        peers={
            "composition": composed,
            "shared exp": shared_exponential,
            "two attentions": as_attention,
        },
        compiled="composition",
        forward_flops=4 * batch * heads * length * length * width,
        quick=quick,
        length=length,
    )


def cases():
    return [
        case(2, 2, 128, 16, quick=True),
        case(8, 12, 128, 16),
        case(8, 12, 512, 16),
        case(8, 12, 512, 64),
        case(1, 12, 2048, 16),
    ]


def scaling():
    return [case(1, 12, length, 16) for length in LENGTHS]

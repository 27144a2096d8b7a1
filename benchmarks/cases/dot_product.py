"""Scaled dot-product attention; the peer that users pick is torch's own."""

import math

import torch
from torch.nn.functional import scaled_dot_product_attention

import headloom
from harness import Case


def composition(causal):
    def attend(q, k, v):
        logits = q @ k.mT / math.sqrt(q.size(-1))
        if causal:
            later = torch.ones(q.size(2), k.size(2), dtype=torch.bool).triu(1)
            logits = logits.masked_fill(later, -math.inf)
        return logits.softmax(-1) @ v

    return attend


def case(batch, heads, length, width, causal, quick=False):
    pairs = length * (length + 1) / 2 if causal else length * length
    return Case(
        mechanism="dot_product",
        name=f"B{batch} H{heads} T{length} D{width}{' causal' if causal else ''}",
        inputs=lambda: [torch.randn(batch, heads, length, width) for _ in range(3)],
        headloom=lambda q, k, v: headloom.ops.dot_product_attention(q, k, v, causal=causal),
        peers={
            "composition": composition(causal),
            "sdpa": lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=causal),
        },
        compiled="composition",
        forward_flops=4 * batch * heads * pairs * width,
        dtypes=[torch.float32, torch.bfloat16],
        quick=quick,
    )


def cases():
    return [
        case(4, 8, 128, 64, False, quick=True),
        case(4, 8, 512, 64, False),
        case(4, 8, 512, 64, True),
        case(1, 8, 2048, 64, False),
        case(1, 8, 2048, 64, True),
    ]

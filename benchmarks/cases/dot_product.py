"""Scaled dot-product attention; the peer that users pick is torch's own."""

import math

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

import headloom
from cases.lengths import LENGTHS
from harness import Case

FORMS = ("plain", "causal", "bias")


def composition(form):
    def attend(q, k, v, bias=0.0):
        logits = q @ k.mT / math.sqrt(q.size(-1)) + bias
        if form == "causal":
            later = torch.ones(q.size(2), k.size(2), dtype=torch.bool).triu(1)
            logits = logits.masked_fill(later, -math.inf)
        return logits.softmax(-1) @ v

    return attend


def sdpa(form):
    return lambda q, k, v, bias=None: scaled_dot_product_attention(
        q, k, v, attn_mask=bias, is_causal=form == "causal"
    )


def flex(form, length):
    mask = None
    if form == "causal":
        mask = create_block_mask(
            lambda b, h, i, j: i >= j, None, None, length, length, device="cpu", BLOCK_SIZE=128
        )

    def attend(q, k, v, bias=None):
        def biased(score, b, h, i, j):
            return score + bias[0, h, i, j]

        return flex_attention(q, k, v, biased if form == "bias" else None, mask)

    return attend


def case(batch, heads, length, width, form="plain", quick=False):
    pairs = length * (length + 1) / 2 if form == "causal" else length * length
    causal = form == "causal"

    def inputs():
        tensors = [torch.randn(batch, heads, length, width) for _ in range(3)]
        return tensors + [torch.randn(1, heads, length, length)] * (form == "bias")

    def ours(q, k, v, bias=None):
        return headloom.ops.dot_product_attention(q, k, v, bias=bias, causal=causal)

    return Case(
        mechanism="dot_product",
        name=f"B{batch} H{heads} T{length} D{width}{'' if form == 'plain' else ' ' + form}",
        inputs=inputs,
        headloom=ours,
        peers={"composition": composition(form), "sdpa": sdpa(form)},
        compiled="composition",
        flex=flex(form, length),
        forward_flops=4 * batch * heads * pairs * width,
        dtypes=[torch.float32, torch.bfloat16],
        quick=quick,
        length=length,
    )


def cases():
    return [case(4, 8, 128, 64, quick=True)] + [
        case(batch, 8, length, 64, form)
        for batch, length in ((4, 512), (1, 2048))
        for form in FORMS
    ]


def scaling():
    return [case(1, 8, length, 64) for length in LENGTHS]

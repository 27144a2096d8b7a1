"""Hierarchical attention; its peers are the same mathematics level by level, and full attention.

HEADLOOM_BENCH_TOKENS=1048576 adds a case of that length (4 heads, headloom alone).
"""

import math
import os

import torch
from torch.nn.functional import pad, scaled_dot_product_attention

import headloom
from cases.lengths import LINEAR
from harness import Case


def beside(blocks, offsets):
    """The blocks at `offsets` from each, zeros beyond the ends: [.., N, R, D] -> [.., N, W, D]."""
    count = blocks.size(-3)
    padded = pad(blocks, (0, 0, 0, 0, 1, 1))
    return torch.cat([padded.narrow(-3, 1 + at, count) for at in offsets], -2)


def hidden(count, block, level, offsets, causal):
    """[N, R, W]: keys beyond the ends, later keys, and what the level below has covered."""
    row = torch.arange(block)[:, None]
    column = torch.cat([torch.arange(block) + at * block for at in offsets])[None]
    absolute = torch.arange(count)[:, None, None] * block + column
    mask = (absolute < 0) | (absolute >= count * block)
    if level == 0:
        return mask | (column > row) if causal else mask
    half = block // 2
    covered = (row < half) & (column >= -half) & (column < 0)
    covered |= (row >= half) & (column >= block) & (column < block + half)
    return mask | covered


def composition(block, causal):
    """Level by level in torch operations, for lengths that are block times a power of two."""

    def attend(q, k, v):
        q, maximum = q / math.sqrt(q.size(-1)), None
        length, level = q.size(2), 0
        while True:
            count = q.size(2) // block
            offsets = [at for at in (-1, 0, 1) if at <= 1 - causal and (at or not level)]
            blocks = [x.unflatten(2, (count, block)) for x in (q, k, v)]
            logits = blocks[0] @ beside(blocks[1], offsets).mT + level * math.log(2)
            logits = logits.masked_fill(hidden(count, block, level, offsets, causal), -math.inf)
            top = logits.detach().amax(-1, keepdim=True).clamp_min(-1e30)
            weights = (logits - top).exp()
            found = [top, weights.sum(-1, keepdim=True), weights @ beside(blocks[2], offsets)]
            found = [x.flatten(2, 3).repeat_interleave(2**level, 2) for x in found]
            if maximum is None:
                maximum, weight, value = found
            else:
                best = torch.maximum(maximum, found[0])
                old, new = (maximum - best).exp(), (found[0] - best).exp()
                weight, value = weight * old + found[1] * new, value * old + found[2] * new
                maximum = best
            if count <= 2:
                return value / weight
            pairs = [x.unflatten(2, (x.size(2) // 2, 2)) for x in (q, k, v)]
            q = pairs[0][:, :, :, 0] if causal else pairs[0].mean(3)
            k, v = pairs[1].mean(3), pairs[2].mean(3)
            assert q.size(2) * 2 ** (level + 1) == length
            level += 1

    return attend


def scored_pairs(length, block, causal):
    levels = max(1, round(math.log2(length / block)))
    if causal:
        return 2.25 * length * block + length / 2 - block**2 * (1.75 + 0.75 * levels)
    return 4.5 * length * block - block**2 * (3.5 + 1.5 * levels)


def case(batch, heads, length, width, block, causal, quick=False, alone=False):
    levels = composition(block, causal)
    return Case(
        mechanism="h_attention",
        name=f"B{batch} H{heads} T{length} R{block}{' causal' if causal else ''}",
        inputs=lambda: [torch.randn(batch, heads, length, width) for _ in range(3)],
        headloom=lambda q, k, v: headloom.ops.h_attention(q, k, v, block_size=block, causal=causal),
        peers={} if alone else {"levels": levels},
        rivals={}
        if alone
        else {"sdpa": lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=causal)},
        compiled=None if alone else "levels",
        truth=levels,
        part=lambda tensors: [t[:, :, :4096] for t in tensors],
        forward_flops=4 * batch * heads * scored_pairs(length, block, causal) * width,
        quick=quick,
        length=length,
    )


def cases():
    found = [case(1, 8, 512, 64, 16, False, quick=True)]
    for length in (1024, 2048, 4096, 16384):
        for block in (16, 32, 64):
            found.append(case(1, 8, length, 64, block, False))
    found.append(case(1, 8, 1024, 64, 16, True))
    found.append(case(1, 8, 4096, 64, 32, True))
    for length in (65536, 262144):
        found.append(case(1, 8, length, 64, 16, False, alone=True))
    extra = os.environ.get("HEADLOOM_BENCH_TOKENS")
    if extra:
        found.append(case(1, 4, int(extra), 64, 16, True, alone=True))
    return found


def scaling():
    """Full attention is timed where it takes less than a second."""
    found = [case(1, 8, length, 64, 16, False) for length in LINEAR]
    for long in (c for c in found if c.length > 4096):
        long.rivals = {}
    return found

"""Hierarchical attention; its peer is the same mathematics level by level, its rival full attention.

What would take more than a few seconds a call, or more memory than the machine has, is left out:
torch.compile beyond 4,096 tokens (and for causal rows, where it would compile as often again), the
composition beyond 16,384 (it keeps every level's outputs at full length for the backward pass), full
attention beyond 16,384, where one block size has it for all. The truth needs no matrix of T x T: it is the
composition in float64, on two heads of the whole length up to 16,384 tokens and on 65,536 tokens of one head
beyond.
"""

import functools
import math

import torch
from torch.nn.functional import scaled_dot_product_attention

import headloom
from cases.lengths import LINEAR
from cases.levels import beside, hidden
from harness import Case


def composition(block, causal):
    """Level by level in torch operations, for lengths that are block times a power of two."""

    def attend(q, k, v):
        q, maximum = q / math.sqrt(q.size(-1)), None
        length, level = q.size(2), 0
        while True:
            count = q.size(2) // block
            offsets = tuple(at for at in (-1, 0, 1) if at <= 1 - causal and (at or not level))
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


def checked(tensors):
    """What is compared with the truth."""
    if tensors[0].size(2) <= 16384:
        return [t[:, :2] for t in tensors]
    return [t[:, :1, :65536] for t in tensors]


def case(heads, length, block, causal, quick=False, dtypes=(torch.float32,), sdpa=True):
    levels = composition(block, causal)
    beside_torch = length <= 16384
    full = {"sdpa": functools.partial(scaled_dot_product_attention, is_causal=causal)}
    return Case(
        mechanism="h_attention",
        name=f"B1 H{heads} T{length} R{block}{' causal' if causal else ''}",
        inputs=lambda: [torch.randn(1, heads, length, 64) for _ in range(3)],
        headloom=functools.partial(headloom.ops.h_attention, block_size=block, causal=causal),
        peers={"levels": levels} if beside_torch else {},
        rivals=full if beside_torch and sdpa else {},
        compiled="levels" if length <= 4096 and not causal else None,
        truth=levels,
        part=checked,
        forward_flops=4 * heads * scored_pairs(length, block, causal) * 64,
        quick=quick,
        dtypes=list(dtypes),
        length=length,
    )


def cases():
    both = (torch.float32, torch.bfloat16)
    found = [case(8, 512, 16, False, quick=True)]
    for length in (1024, 2048, 4096, 16384, 65536, 262144):
        for block in (16, 32, 64):
            for causal in (False, True):
                halves = block == 16 and length in (2048, 16384)
                found.append(
                    case(
                        8,
                        length,
                        block,
                        causal,
                        dtypes=both if halves else both[:1],
                        sdpa=length < 16384 or block == 16,
                    )
                )
    # A million tokens: 3 GiB of inputs.
    found.append(case(4, 1 << 20, 16, True))
    return found


def scaling():
    """Full attention is timed where it takes less than a second."""
    found = [case(8, length, 16, False) for length in LINEAR]
    for long in (c for c in found if c.length > 4096):
        long.rivals = {}
    return found

"""What one level of hierarchical attention is made of, in torch operations."""

import functools

import torch
from torch.nn.functional import pad


def beside(blocks, offsets):
    """The blocks at `offsets` from each, zeros beyond the ends: [.., N, R, D] -> [.., N, W, D]."""
    count = blocks.size(-3)
    padded = pad(blocks, (0, 0, 0, 0, 1, 1))
    return torch.cat([padded.narrow(-3, 1 + at, count) for at in offsets], -2)


@functools.cache
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

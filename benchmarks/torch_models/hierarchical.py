"""Hierarchical attention (Zhu and Soricut, 2021), level by level in batched products.

B batch, H heads, T tokens, D head width, R block size, N blocks, W columns that a block sees.
"""

import functools
import math

import torch
from torch import nn
from torch.nn import functional as F

from cases.levels import beside, hidden

from .attention import hide, merge, split

# Large and negative, and finite: a block that sees nothing yet has no other score.
NOTHING = -1e30


@functools.cache
def offsets_of(level, causal):
    return tuple(at for at in (-1, 0, 1) if at <= 1 - causal and (at or not level))


@functools.cache
def bias_index(block, offsets):
    """[R, W]: which entry of the bias [4R - 1] a pair of a block has."""
    column = torch.cat([torch.arange(block) + at * block for at in offsets])
    return column - torch.arange(block)[:, None] + 2 * block - 1


def padded_length(length, block):
    return block << max(1, math.ceil(math.log2(length / block)))


class HierarchicalAttention(nn.Module):
    FORMS = ("levels",)
    PACKED = {"qkv": ("q_proj", "k_proj", "v_proj")}

    def __init__(self, setting):
        super().__init__()
        dim, self.heads = setting.dim, setting.heads
        self.causal, self.dropout = setting.causal, setting.dropout
        self.block = setting.options.get("block_size", 16)
        self.scale = (dim / self.heads) ** -0.5
        bias = setting.options.get("bias", False)
        self.qkv = nn.Linear(dim, 3 * dim, bias)
        self.out_proj = nn.Linear(dim, dim, bias)
        self.relative_bias = nn.Parameter(torch.empty(self.heads, 4 * self.block - 1))

    def forward(self, x, masks):
        q, k, v = (split(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        if x.size(1) <= 2 * self.block:
            mixed = self.attend_all(q, k, v, masks)
        else:
            mixed = self.attend_levels(q, k, v, masks.padding)
        return self.out_proj(merge(mixed))

    def attend_all(self, q, k, v, masks):
        """Two blocks see each other whole: ordinary attention with a bias by distance."""
        token = torch.arange(q.size(2))
        bias = self.relative_bias[:, token - token[:, None] + 2 * self.block - 1]
        logits = hide((q * self.scale) @ k.mT + bias, masks.keep, self.causal)
        return F.dropout(logits.softmax(-1), self.dropout, self.training) @ v

    def attend_levels(self, q, k, v, padding):
        length, more = q.size(2), padded_length(q.size(2), self.block) - q.size(2)
        there = None  # [B, 1, T, 1], tokens in a group, where some are missing
        if padding is not None or more:
            present = q.new_ones(q.size(0), length) if padding is None else (~padding).to(q.dtype)
            there = F.pad(present, (0, more))[:, None, :, None]
            q, k, v = (F.pad(x, (0, 0, 0, more)) * there for x in (q, k, v))
        q, level, state = q * self.scale, 0, None
        first = there
        while True:
            found = self.attend_level(q, k, v, there, level)
            found = [x.flatten(2, 3).repeat_interleave(2**level, 2) for x in found]
            state = found if state is None else combined(state, found)
            if q.size(2) <= 2 * self.block:
                return (state[2] / state[1])[:, :, :length]
            q, first = self.coarser_queries(q, there, first)
            (k, v), there = coarser((k, v), there)
            level += 1

    def attend_level(self, q, k, v, there, level):
        """Largest score, sum of weights and weighted values of each query of a block: [B, H, N, R, .]"""
        block, count = self.block, q.size(2) // self.block
        offsets = offsets_of(level, self.causal)
        by_block = [x.unflatten(2, (count, block)) for x in (q, k, v)]
        logits = by_block[0] @ beside(by_block[1], offsets).mT
        logits = logits + self.relative_bias[:, None, bias_index(block, offsets)]
        never = hidden(count, block, level, offsets, self.causal)
        if there is None:
            logits = logits + level * math.log(2)
        else:
            sizes = beside(there.unflatten(2, (count, block)), offsets).mT  # [B, 1, N, 1, W]
            logits = logits + sizes.clamp_min(1).log()
            never = never | (sizes == 0)
        logits = logits.masked_fill(never, -math.inf)
        top = logits.detach().amax(-1, keepdim=True).clamp_min(NOTHING)
        weights = (logits - top).exp()
        kept = F.dropout(weights, self.dropout, self.training)
        return [top, weights.sum(-1, keepdim=True), kept @ beside(by_block[2], offsets)]

    def coarser_queries(self, q, there, first):
        """Means of two groups; where causal, the first token that is there."""
        if not self.causal:
            return coarser((q,), there)[0][0], None
        pairs = q.unflatten(2, (-1, 2))
        if first is None:
            return pairs[:, :, :, 0], None
        seen = first.unflatten(2, (-1, 2)) > 0
        return (
            torch.where(seen[:, :, :, 0], pairs[:, :, :, 0], pairs[:, :, :, 1]),
            seen.any(3).to(q.dtype),
        )


def coarser(tensors, there):
    """Means of pairs of groups, weighted by the tokens in them, and how many these are."""
    pairs = [x.unflatten(2, (-1, 2)) for x in tensors]
    if there is None:
        return [x.mean(3) for x in pairs], None
    counts = there.unflatten(2, (-1, 2))
    total = counts.sum(3)
    return [(x * counts).sum(3) / total.clamp_min(1) for x in pairs], total


def combined(state, found):
    best = torch.maximum(state[0], found[0])
    old, new = (state[0] - best).exp(), (found[0] - best).exp()
    return [
        best,
        state[1] * old + found[1] * new,
        state[2] * old + found[2] * new,
    ]

"""Talking-heads attention; with T5's biases by distance, and with heads that do not talk, T5's own.

B batch, H heads, T tokens, S keys, D head width.
"""

import functools
import math

import torch
from torch import nn
from torch.nn import functional as F

from .attention import ATTEND, hide, merge, split

BUCKETS, MAX_DISTANCE = 32, 128


def mix_einsum(x, mix):
    return torch.einsum("bhij,hk->bkij", x, mix)


def mix_matmul(x, mix):
    return (mix.mT @ x.flatten(2)).unflatten(2, x.shape[2:])


def mix_conv2d(x, mix):
    return F.conv2d(x, mix.mT[:, :, None, None])


MIXES = {"einsum": mix_einsum, "matmul": mix_matmul, "conv2d": mix_conv2d}


@functools.cache
def later(length):
    """[T, T]: -inf at keys that a query may not see, else 0."""
    return torch.full((length, length), -math.inf).triu(1)


@functools.cache
def bucket_of_pairs(length, causal, buckets, max_distance):
    """[T T]: the bucket of each pair of a query and a key."""
    token = torch.arange(length)
    ahead = token - token[:, None]
    first, distance = 0, -ahead.clamp_max(0)
    if not causal:
        buckets //= 2
        first, distance = buckets * (ahead > 0), ahead.abs()
    exact = buckets // 2
    steps = (distance.clamp_min(1).double() / exact).log() / math.log(max_distance / exact)
    far = (exact + (steps * (buckets - exact)).long()).clamp_max(buckets - 1)
    return (first + torch.where(distance < exact, distance, far)).flatten()


class Heads(nn.Module):
    """What self and cross attention share. The scale is in the queries' initial values."""

    def __init__(self, setting):
        super().__init__()
        dim, options = setting.dim, setting.options
        self.heads, self.causal, self.dropout = setting.heads, setting.causal, setting.dropout
        self.talk = options.get("mixing", "both") == "both"
        self.apply_form = forms_of(options)[setting.form]
        if self.talk:
            self.logits_proj = nn.Parameter(torch.empty(self.heads, self.heads))
            self.weights_proj = nn.Parameter(torch.empty(self.heads, self.heads))
        if options.get("relative_bias", "none") == "t5":
            self.table = options.get("buckets", BUCKETS), options.get("max_distance", MAX_DISTANCE)
            self.relative_bias = nn.Parameter(torch.empty(self.heads, self.table[0]))
        self.out_proj = nn.Linear(dim, dim, bias=False)

    def bias(self, length):
        """[H, T, T], with -inf where a query may not see a key; or None."""
        if not hasattr(self, "relative_bias"):
            return None
        index = bucket_of_pairs(length, self.causal, *self.table)
        bias = self.relative_bias.index_select(1, index).unflatten(1, (length, length))
        return bias + later(length) if self.causal else bias

    def attend(self, q, k, v, keep):
        dropout = self.dropout if self.training else 0.0
        bias = self.bias(q.size(2))
        causal = self.causal and bias is None
        if not self.talk:
            return self.apply_form(q, k, v, keep, causal, dropout, 1.0, bias)
        logits = self.apply_form(q @ k.mT, self.logits_proj)
        logits = hide(logits if bias is None else logits + bias, keep, causal)
        return F.dropout(self.apply_form(logits.softmax(-1), self.weights_proj), dropout) @ v


class TalkingHeads(Heads):
    """Of the tokens to themselves."""

    PACKED = {"qkv": ("q_proj", "k_proj", "v_proj")}

    def __init__(self, setting):
        super().__init__(setting)
        self.qkv = nn.Linear(setting.dim, 3 * setting.dim, bias=False)

    def forward(self, x, masks):
        q, k, v = (split(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        return self.out_proj(merge(self.attend(q, k, v, masks.keep)))


class CrossTalkingHeads(Heads):
    """To a memory."""

    PACKED = {"kv": ("k_proj", "v_proj")}

    def __init__(self, setting):
        super().__init__(setting)
        self.q_proj = nn.Linear(setting.dim, setting.dim, bias=False)
        self.kv = nn.Linear(setting.dim, 2 * setting.dim, bias=False)

    def forward(self, x, memory, masks):
        q = split(self.q_proj(x), self.heads)
        k, v = (split(part, self.heads) for part in self.kv(memory).chunk(2, -1))
        return self.out_proj(merge(self.attend(q, k, v, masks.keep)))


def forms_of(options):
    return MIXES if options.get("mixing", "both") == "both" else ATTEND

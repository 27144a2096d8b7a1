"""Attention of every pair of tokens: ordinary and symmetric; what other mechanisms share.

B batch, H heads, T tokens, S keys, D head width, C model width.
"""

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F


class Masks(NamedTuple):
    """padding [B, T] is true at padding; keep [B, 1, 1, T] is its opposite, as attention takes it. None:
    there is no padding."""

    padding: torch.Tensor | None = None
    keep: torch.Tensor | None = None

    @classmethod
    def of(cls, padding):
        return cls() if padding is None else cls(padding, ~padding[:, None, None])


class Setting(NamedTuple):
    """What a model says to each of its mixers."""

    dim: int
    heads: int
    causal: bool
    dropout: float  # on the mixing weights
    layer: int
    options: dict  # of the mechanism, as the recipe has them
    form: str  # one of FORMS


def hide(logits, keep, causal):
    """Scores of what may not be seen become -inf."""
    if keep is not None:
        logits = logits.masked_fill(~keep, -math.inf)
    if causal:
        later = torch.ones(logits.shape[-2:], dtype=torch.bool).triu(1)
        logits = logits.masked_fill(later, -math.inf)
    return logits


def composed(q, k, v, keep, causal, dropout, scale, bias=None):
    logits = (q if scale == 1.0 else q * scale) @ k.mT
    weights = hide(logits if bias is None else logits + bias, keep, causal).softmax(-1)
    return (F.dropout(weights, dropout) if dropout else weights) @ v


def fused(q, k, v, keep, causal, dropout, scale, bias=None):
    mask = keep if bias is None else hide(bias, keep, False)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=scale
    )


ATTEND = {"sdpa": fused, "composition": composed}


def split(x, heads):
    """[B, T, H D] -> [B, H, T, D]"""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def merge(x):
    return x.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Ordinary attention of the tokens to themselves."""

    FORMS = tuple(ATTEND)
    PACKED = {"qkv": ("q_proj", "k_proj", "v_proj")}

    def __init__(self, setting):
        super().__init__()
        self.heads, self.causal, self.dropout = setting.heads, setting.causal, setting.dropout
        self.attend = ATTEND[setting.form]
        width, bias = setting.options.get("width", setting.dim), setting.options.get("bias", True)
        self.scale = setting.options.get("logit_scale", 1.0) / math.sqrt(width / setting.heads)
        self.qkv = nn.Linear(setting.dim, 3 * width, bias)
        self.out_proj = nn.Linear(width, setting.dim, bias)

    def forward(self, x, masks):
        q, k, v = (split(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        dropout = self.dropout if self.training else 0.0
        return self.out_proj(
            merge(self.attend(q, k, v, masks.keep, self.causal, dropout, self.scale))
        )


class CrossAttention(nn.Module):
    """Ordinary attention to a memory."""

    FORMS = tuple(ATTEND)
    PACKED = {"kv": ("k_proj", "v_proj")}

    def __init__(self, setting):
        super().__init__()
        self.heads, self.dropout = setting.heads, setting.dropout
        self.attend = ATTEND[setting.form]
        self.scale = (setting.dim / setting.heads) ** -0.5
        self.q_proj = nn.Linear(setting.dim, setting.dim)
        self.kv = nn.Linear(setting.dim, 2 * setting.dim)
        self.out_proj = nn.Linear(setting.dim, setting.dim)

    def forward(self, x, memory, masks):
        q = split(self.q_proj(x), self.heads)
        k, v = (split(part, self.heads) for part in self.kv(memory).chunk(2, -1))
        dropout = self.dropout if self.training else 0.0
        return self.out_proj(merge(self.attend(q, k, v, masks.keep, False, dropout, self.scale)))


class Symmetric(nn.Module):
    """One projection is queries and keys, with coefficients [H, D, D] between them in the form
    pairwise."""

    FORMS = tuple(ATTEND)
    PACKED = {"qv": ("q_proj", "v_proj")}

    def __init__(self, setting):
        super().__init__()
        self.heads, self.causal, self.dropout = setting.heads, setting.causal, setting.dropout
        self.attend = ATTEND[setting.form]
        width = setting.dim // setting.heads
        self.scale = width**-0.5
        self.qv = nn.Linear(setting.dim, 2 * setting.dim)
        self.out_proj = nn.Linear(setting.dim, setting.dim)
        if setting.options.get("form", "pairwise") == "pairwise":
            shape = (setting.heads, width, width)
            self.pairwise = nn.Parameter(torch.empty(shape))
            if setting.options.get("initial", "normal") != "normal":
                self.register_buffer("pairwise_initial", torch.empty(shape))

    def coefficients(self):
        if hasattr(self, "pairwise_initial"):
            return self.pairwise + self.pairwise_initial
        return getattr(self, "pairwise", None)

    def forward(self, x, masks):
        q, v = (split(part, self.heads) for part in self.qv(x).chunk(2, -1))
        coefficients = self.coefficients()
        folded = q if coefficients is None else q @ coefficients
        dropout = self.dropout if self.training else 0.0
        return self.out_proj(
            merge(self.attend(folded, q, v, masks.keep, self.causal, dropout, self.scale))
        )

"""Lightweight and dynamic convolution between their projections (Wu et al., 2019).

B batch, T tokens, C channels, H heads, K kernel width.
"""

import functools

import torch
from torch import nn
from torch.nn import functional as F

from cases.convolution import banded, depthwise, shifted, unfolded

WIDTHS = (3, 7, 15, 31, 31, 31, 31)
ANY = {"shifted": shifted, "unfold": unfolded, "band": banded}


class Convolution(nn.Module):
    def __init__(self, setting):
        super().__init__()
        widths = setting.options.get("kernel_sizes", WIDTHS)
        self.width = widths[min(setting.layer, len(widths) - 1)]
        self.left = self.width - 1 if setting.causal else self.width // 2
        self.heads, self.dropout = setting.heads, setting.dropout
        self.in_proj = nn.Linear(setting.dim, 2 * setting.dim)
        self.out_proj = nn.Linear(setting.dim, setting.dim)

    def forward(self, x, masks):
        values = F.glu(self.in_proj(x), -1)
        if masks.padding is not None:
            values = values.masked_fill(masks.padding[..., None], 0.0)
        return self.out_proj(self.convolve(values))


class LightConvolution(Convolution):
    FORMS = (*ANY, "conv1d")

    def __init__(self, setting):
        super().__init__(setting)
        self.weight = nn.Parameter(torch.empty(self.heads, self.width))
        if setting.form == "conv1d":
            self.apply_weights = functools.partial(depthwise, left=self.left)
        else:
            form = ANY[setting.form]
            self.apply_weights = lambda x, weights: form(x, weights[None, None], self.left)

    def convolve(self, x):
        weights = F.dropout(self.weight.softmax(-1), self.dropout, self.training)
        return self.apply_weights(x, weights)


class DynamicConvolution(Convolution):
    FORMS = tuple(ANY)

    def __init__(self, setting):
        super().__init__(setting)
        self.form = ANY[setting.form]
        self.kernel_proj = nn.Linear(setting.dim, self.heads * self.width, bias=False)

    def convolve(self, x):
        logits = self.kernel_proj(x).unflatten(-1, (self.heads, self.width))
        return self.form(x, F.dropout(logits.softmax(-1), self.dropout, self.training), self.left)

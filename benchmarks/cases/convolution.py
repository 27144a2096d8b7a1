"""What both convolutions are compared with: the ways people write them in torch."""

import torch
from torch.nn.functional import conv1d, pad


def shifted(x, weights, left):
    """K multiply-adds of shifted views. x [B, T, C], weights [B or 1, T or 1, H, K]."""
    batch, length, channels = x.shape
    heads, width = weights.shape[2:]
    padded = pad(x, (0, 0, left, width - 1 - left))
    total = torch.zeros_like(x).view(batch, length, heads, -1)
    for k in range(width):
        part = padded[:, k : k + length].reshape(batch, length, heads, -1)
        total = total + weights[..., k, None] * part
    return total.reshape(batch, length, channels)


def unfolded(x, weights, left):
    """fairseq's unfold and batched product: holds K copies of x."""
    batch, length, channels = x.shape
    heads, width = weights.shape[2:]
    windows = pad(x, (0, 0, left, width - 1 - left)).unfold(1, width, 1)  # [B, T, C, K]
    windows = windows.reshape(batch * length * heads, channels // heads, width)
    expanded = weights.expand(batch, length, heads, width).reshape(-1, width, 1)
    return (windows @ expanded).view(batch, length, channels)


def banded(x, weights, left):
    """fairseq's band matrix [B H, T, T + K - 1]."""
    batch, length, channels = x.shape
    heads, width = weights.shape[2:]
    band = x.new_zeros(batch * heads, length, length + width - 1)
    expanded = weights.expand(batch, length, heads, width).transpose(1, 2)
    strides = (length * (length + width - 1), length + width, 1)
    diagonal = band.as_strided((batch * heads, length, width), strides)
    diagonal.copy_(expanded.reshape(batch * heads, length, width))
    band = band.narrow(2, left, length)
    values = x.view(batch, length, heads, -1).transpose(1, 2).reshape(batch * heads, length, -1)
    mixed = (band @ values).view(batch, heads, length, -1)
    return mixed.transpose(1, 2).reshape(batch, length, channels)


def depthwise(x, weights, left):
    """One group of conv1d a channel, each kernel repeated. weights [H, K]."""
    width = weights.size(1)
    per_channel = weights.repeat_interleave(x.size(2) // weights.size(0), 0)
    padded = pad(x.mT, (left, width - 1 - left))
    return conv1d(padded, per_channel[:, None], groups=x.size(2)).mT


def sizes():
    """batch, channels, heads, length, width"""
    return [
        (8, 512, heads, length, width)
        for length in (512, 4096)
        for heads in (8, 16)
        for width in (7, 15, 31)
    ]


QUICK_SIZE = (2, 128, 4, 128, 7)
LARGEST_UNFOLD = 1 << 27  # elements of its K copies of x; at T 4096 those of K 15 would be 1 GB
LONGEST_BAND = 512  # the band matrix grows with the square of the length
DTYPES = [torch.float32, torch.bfloat16]


def first_row(tensors):
    """The first row of the batch; a weight that all rows share stays whole."""
    return [t[:1] if t.dim() > 2 else t for t in tensors]

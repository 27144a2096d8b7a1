"""Lightweight convolution; the peer that users pick is a grouped conv1d."""

import torch
from torch.nn.functional import conv1d, pad

import headloom
from cases.convolution import QUICK_SIZE, SIZES, banded, shifted, unfolded
from harness import Case


def over_positions(form, left):
    return lambda x, weight: form(x, weight.softmax(-1)[None, None], left)


def grouped_conv1d(left):
    def convolve(x, weight):
        width = weight.size(1)
        per_channel = weight.softmax(-1).repeat_interleave(x.size(2) // weight.size(0), 0)
        padded = pad(x.mT, (left, width - 1 - left))
        return conv1d(padded, per_channel[:, None], groups=x.size(2)).mT

    return convolve


def case(batch, channels, heads, length, width, quick=False):
    left = width // 2
    peers = {
        "shifted": over_positions(shifted, left),
        "unfold": over_positions(unfolded, left),
        "conv1d": grouped_conv1d(left),
    }
    if length <= 512:
        peers["band"] = over_positions(banded, left)
    return Case(
        mechanism="light_conv",
        name=f"B{batch} C{channels} H{heads} T{length} K{width}",
        inputs=lambda: [torch.randn(batch, length, channels), torch.randn(heads, width)],
        headloom=lambda x, weight: headloom.ops.light_conv(x, weight, padding="same"),
        peers=peers,
        compiled="shifted",
        forward_flops=2 * batch * length * channels * width,
        quick=quick,
    )


def cases():
    return [case(*QUICK_SIZE, quick=True)] + [case(*size) for size in SIZES]

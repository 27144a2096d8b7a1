"""Lightweight convolution; the peer that users pick is a grouped conv1d."""

import torch
from torch.nn.functional import conv1d, pad

import headloom
from cases.convolution import (
    DTYPES,
    LARGEST_UNFOLD,
    LONGEST_BAND,
    QUICK_SIZE,
    banded,
    depthwise,
    first_row,
    shifted,
    sizes,
    unfolded,
)
from cases.lengths import LINEAR
from harness import Case


def over_positions(form, left):
    return lambda x, weight: form(x, weight.softmax(-1)[None, None], left)


def grouped_conv1d(left):
    """fairseq's: the channels of a head join the batch, one group a head."""

    def convolve(x, weight):
        (batch, length, channels), (heads, width) = x.shape, weight.shape
        by_head = x.mT.reshape(batch, heads, -1, length).transpose(1, 2).reshape(-1, heads, length)
        padded = pad(by_head, (left, width - 1 - left))
        mixed = conv1d(padded, weight.softmax(-1)[:, None], groups=heads)
        return mixed.view(batch, -1, heads, length).transpose(1, 2).reshape(batch, channels, -1).mT

    return convolve


def case(batch, channels, heads, length, width, quick=False):
    left = width // 2
    peers = {
        "shifted": over_positions(shifted, left),
        "conv1d grouped": grouped_conv1d(left),
        "conv1d depthwise": lambda x, weight: depthwise(x, weight.softmax(-1), left),
    }
    if batch * length * channels * width <= LARGEST_UNFOLD:
        peers["unfold"] = over_positions(unfolded, left)
    if length <= LONGEST_BAND:
        peers["band"] = over_positions(banded, left)
    return Case(
        mechanism="light_conv",
        name=f"B{batch} C{channels} H{heads} T{length} K{width}",
        inputs=lambda: [torch.randn(batch, length, channels), torch.randn(heads, width)],
        headloom=lambda x, weight: headloom.ops.light_conv(x, weight, padding="same"),
        peers=peers,
        compiled="shifted",
        forward_flops=2 * batch * length * channels * width,
        part=first_row,
        dtypes=DTYPES,
        quick=quick,
        length=length,
    )


def cases():
    return [case(*QUICK_SIZE, quick=True)] + [case(*size) for size in sizes()]


def scaling():
    return [case(1, 512, 8, length, 15) for length in LINEAR[:-1]]

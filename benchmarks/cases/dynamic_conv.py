"""Dynamic convolution; the kernels are given as logits, as the operator takes them."""

import torch

import headloom
from cases.convolution import (
    DTYPES,
    LARGEST_UNFOLD,
    LONGEST_BAND,
    QUICK_SIZE,
    banded,
    first_row,
    shifted,
    sizes,
    unfolded,
)
from cases.lengths import LINEAR
from harness import Case


def over_positions(form, left):
    return lambda x, logits: form(x, logits.softmax(-1), left)


def case(batch, channels, heads, length, width, quick=False):
    left = width // 2
    peers = {
        "shifted": over_positions(shifted, left),
    }
    if batch * length * channels * width <= LARGEST_UNFOLD:
        peers["unfold"] = over_positions(unfolded, left)
    if length <= LONGEST_BAND:
        peers["band"] = over_positions(banded, left)
    return Case(
        mechanism="dynamic_conv",
        name=f"B{batch} C{channels} H{heads} T{length} K{width}",
        inputs=lambda: [
            torch.randn(batch, length, channels),
            torch.randn(batch, length, heads, width),
        ],
        headloom=lambda x, logits: headloom.ops.dynamic_conv(x, logits, padding="same"),
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

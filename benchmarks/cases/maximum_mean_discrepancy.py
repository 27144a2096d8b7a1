"""The squared mean discrepancy; the peers are what a user would write."""

import torch

import headloom
from cases.lengths import LENGTHS
from harness import Case


def by_cdist(x, y):
    def kernel(a, b):
        return (-0.5 * torch.cdist(a, b).square()).exp().mean((-2, -1))

    return kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)


def by_products(x, y):
    """|a - b|^2 from one matrix product: faster, and exact enough for widths like these."""

    def kernel(a, b):
        squares = a.square().sum(-1)[..., :, None] + b.square().sum(-1)[..., None, :]
        return (a @ b.mT - 0.5 * squares).exp().mean((-2, -1))

    return kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)


def case(batch, heads, length, width, quick=False):
    shape = (batch, heads, length, width)

    def inputs():
        # Points of about unit length from two distributions: the distance is not all rounding.
        return [torch.randn(shape) / width**0.5, torch.randn(shape) / width**0.5 + 0.2]

    return Case(
        mechanism="maximum_mean_discrepancy",
        name=f"B{batch} H{heads} N{length} D{width}",
        inputs=inputs,
        headloom=headloom.ops.maximum_mean_discrepancy,
        peers={"products": by_products, "cdist": by_cdist},
        compiled="products",
        # Two of the three kernels are symmetric, and half of them is enough.
        forward_flops=4 * batch * heads * length * length * width,
        quick=quick,
        length=length,
    )


def cases():
    return [case(2, 2, 128, 16, quick=True), case(8, 12, 128, 64), case(8, 12, 512, 64)]


def scaling():
    return [case(1, 12, length, 64) for length in LENGTHS[:-1]]

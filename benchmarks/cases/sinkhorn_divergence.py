"""Entropic transport by a fixed number of Sinkhorn's iterations, gradients with the plan held constant."""

import math

import torch

import headloom
from cases.lengths import LENGTHS
from harness import Case

EPS, ITERATIONS = 0.5, 20


def composition(x, y):
    """In the log domain; the iterations need no gradient, as the plan counts as constant."""
    squares = x.square().sum(-1)[..., :, None] + y.square().sum(-1)[..., None, :]
    cost = squares / 2 - x @ y.mT
    with torch.no_grad():
        a, b = -math.log(x.size(-2)), -math.log(y.size(-2))
        g = torch.zeros_like(cost[..., 0, :])
        for _ in range(ITERATIONS):
            f = -EPS * torch.logsumexp((g[..., None, :] - cost) / EPS + b, -1)
            g = -EPS * torch.logsumexp((f[..., :, None] - cost) / EPS + a, -2)
        plan = ((f[..., :, None] + g[..., None, :] - cost) / EPS + a + b).exp()
        value = f.mean(-1) + g.mean(-1)
    moved = (plan * cost).sum((-2, -1))
    return value + (moved - moved.detach())


def ours(x, y):
    return headloom.ops.sinkhorn_divergence(
        x, y, eps=EPS, debiased=False, max_iter=ITERATIONS, tol=0.0
    )


def case(batch, heads, length, width, quick=False):
    shape = (batch, heads, length, width)
    return Case(
        mechanism="sinkhorn_divergence",
        name=f"B{batch} H{heads} N{length} D{width}",
        inputs=lambda: [torch.randn(shape) / width**0.5 for _ in range(2)],
        headloom=ours,
        peers={"composition": composition},
        compiled="composition",
        # The costs of a pair are computed once, and each iteration uses them twice.
        forward_flops=batch * heads * length * length * (2 * width + 4 * ITERATIONS),
        quick=quick,
        length=length,
    )


def cases():
    return [case(2, 2, 128, 16, quick=True), case(8, 12, 128, 64), case(8, 12, 512, 64)]


def scaling():
    return [case(1, 12, length, 64) for length in LENGTHS[:-1]]

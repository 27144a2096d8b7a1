#!/usr/bin/env python3
"""Draws the pictures of the mechanisms' pages from the operators themselves.

    PYTHONPATH=python .venv/bin/python docs/draw.py

An operator that is linear in its values shows its weights when the values are the identity matrix.
"""

import sys
from pathlib import Path

import torch
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "scripts")]

from matplotlib.patches import Rectangle  # noqa: E402

from headloom import ops  # noqa: E402
from svg_style import COLOURS, GREY, save, subplots  # noqa: E402

IMAGES = ROOT / "docs" / "images"


def smooth(heads, time, width):
    """Queries and keys whose neighbours resemble each other, as tokens of real sequences do."""
    noise = torch.randn(1, heads * width, time + 8)
    return 3.0 * functional.avg_pool1d(noise, 9, 1).unflatten(1, (heads, width)).mT


def heat(axes, matrix, title, x="key", y="query", **options):
    axes.imshow(matrix.detach().numpy(), aspect="equal", **options)
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def dot_product(file, time=40):
    q, k = smooth(1, time, 8), smooth(1, time, 8)
    values = torch.eye(time)[None, None]
    padding = (torch.arange(time) >= time - 8)[None]
    figure, axes = subplots(1, 3, figsize=(8.6, 3.1))
    for place, title, options in (
        (axes[0], "every key", {}),
        (axes[1], "causal", {"causal": True}),
        (axes[2], "8 keys of padding", {"key_padding_mask": padding}),
    ):
        heat(place, ops.dot_product_attention(q, k, values, **options)[0, 0], title, vmax=0.2)
    save(figure, file)


def talking_heads(file, time=40, heads=4):
    q, k = smooth(heads, time, 8), smooth(heads, time, 8)
    values = torch.eye(time).expand(1, heads, time, time)
    identity = torch.eye(heads)
    mix_logits = identity + 0.4 * torch.randn(heads, heads)
    mix_weights = (identity + 0.5 * torch.rand(heads, heads)).softmax(0)
    plain = ops.talking_heads_attention(q, k, values, identity, identity)[0]
    mixed = ops.talking_heads_attention(q, k, values, mix_logits, mix_weights)[0]
    figure, axes = subplots(2, 4, figsize=(8.6, 4.6))
    for head in (0, 1, 2):
        heat(axes[0, head], plain[head], f"head {head}, alone", vmax=0.2)
        heat(axes[1, head], mixed[head], f"head {head}, mixed", vmax=0.2)
    for place, matrix, title in (
        (axes[0, 3], mix_logits, "logits_proj"),
        (axes[1, 3], mix_weights, "weights_proj"),
    ):
        bound = matrix.abs().max()
        heat(place, matrix, title, "to head", "from head", cmap="PuOr", vmin=-bound, vmax=bound)
        place.set_xticks(range(heads))
        place.set_yticks(range(heads))
    save(figure, file)


def h_transformer(file, time=64):
    q, k = smooth(1, time, 8), smooth(1, time, 8)
    full = ops.dot_product_attention(q, k, torch.eye(time)[None, None])
    figure, axes = subplots(1, 3, figsize=(8.6, 3.1))
    heat(axes[0], full[0, 0], "full attention", vmax=0.12)
    heat(axes[1], ops.h_attention_weights(q, k, block_size=4)[0, 0], "R = 4", vmax=0.12)
    causal = ops.h_attention_weights(q, k, block_size=4, causal=True)
    heat(axes[2], causal[0, 0], "R = 4, causal", vmax=0.12)
    save(figure, file)


def symmetric(file, time=40, tiles=6):
    q = smooth(1, time, 8)
    values = torch.eye(time)[None, None]
    plain = ops.symmetric_attention(q, values)[0, 0]
    pairwise = ops.symmetric_attention(q, values, torch.randn(1, 8, 8) / 2)[0, 0]
    figure, axes = subplots(1, 3, figsize=(8.6, 3.1))
    # The weights of a row are its scores up to the row's own sum.
    heat(axes[0], plain, "no coefficients: symmetric scores", vmax=0.2)
    heat(axes[1], pairwise, "pairwise coefficients", vmax=0.2)
    for row in range(tiles):
        for column in range(tiles):
            scored = column <= row
            style = {"facecolor": COLOURS[1] if scored else "none", "edgecolor": GREY}
            axes[2].add_patch(Rectangle((column, row), 1, 1, **style))
            if not scored:
                axes[2].text(column + 0.5, row + 0.5, "T", ha="center", va="center", color=GREY)
    axes[2].set(xlim=(0, tiles), ylim=(tiles, 0), aspect="equal", title="half tiles: T is reused")
    axes[2].set(xlabel="tile of keys", ylabel="tile of queries")
    save(figure, file)


def convolution(file, weights_of, titles, time=32):
    """What every position of a sequence gives to every other, for one head."""
    identity = torch.eye(time)[None]
    figure, axes = subplots(1, len(titles), figsize=(8.6, 3.1))
    for place, (title, run) in zip(axes, titles.items(), strict=True):
        heat(place, run(identity, weights_of(time))[0], title, "input", "output", vmax=0.6)
    save(figure, file)


def light_conv(file):
    titles = {
        "same, K = 7": lambda x, w: ops.light_conv(x, w, padding="same"),
        "causal": lambda x, w: ops.light_conv(x, w, padding="causal"),
        "two packed sequences": lambda x, w: ops.light_conv(
            x, w, padding="causal", cu_seqlens=torch.tensor([0, 13, 32])
        ),
    }
    weights = 1.5 * torch.randn(1, 7)
    convolution(file, lambda time: weights, titles)


def dynamic_conv(file):
    titles = {
        "same, K = 7": lambda x, w: ops.dynamic_conv(x, w, padding="same"),
        "causal": lambda x, w: ops.dynamic_conv(x, w, padding="causal"),
        "causal, renorm_padding": lambda x, w: ops.dynamic_conv(
            x, w, padding="causal", renorm_padding=True
        ),
    }
    weights = 1.5 * torch.randn(1, 32, 1, 7)
    convolution(file, lambda time: weights, titles)


def alignment(file, points=60, steps=200):
    """Queries and keys in the plane before and after descent on two distances."""
    queries = torch.randn(1, 1, points, 2) * torch.tensor([1.0, 0.3]) + torch.tensor([-1.5, 0.5])
    keys = torch.randn(1, 1, points, 2) * torch.tensor([0.4, 0.9]) + torch.tensor([1.5, -0.5])
    losses = {
        "maximum_mean_discrepancy": lambda x, y: ops.maximum_mean_discrepancy(x, y, bandwidth=3.0),
        "sinkhorn_divergence": lambda x, y: ops.sinkhorn_divergence(x, y, eps=0.1),
    }
    figure, axes = subplots(1, 3, figsize=(8.6, 3.1), sharex=True, sharey=True)

    def scatter(place, x, y, title):
        for cloud, name, colour in ((x, "queries", COLOURS[0]), (y, "keys", COLOURS[1])):
            place.scatter(*cloud[0, 0].detach().T.numpy(), s=10, color=colour, label=name)
        place.set_title(title)

    scatter(axes[0], queries, keys, "before")
    for place, (name, loss) in zip(axes[1:], losses.items(), strict=True):
        x, y = queries.clone().requires_grad_(), keys.clone().requires_grad_()
        optimizer = torch.optim.Adam([x, y], 0.02)
        for _ in range(steps):
            optimizer.zero_grad()
            loss(x, y).sum().backward()
            optimizer.step()
        scatter(place, x, y, name)
    axes[0].legend(frameon=False, loc="lower left")
    save(figure, file)


PICTURES = [
    dot_product,
    talking_heads,
    h_transformer,
    symmetric,
    alignment,
    light_conv,
    dynamic_conv,
]


def main():
    torch.set_num_threads(1)
    IMAGES.mkdir(parents=True, exist_ok=True)
    for draw in PICTURES:
        torch.manual_seed(5)
        draw(IMAGES / f"{draw.__name__}.svg")


if __name__ == "__main__":
    main()

"""Draws what heads attend to: attention maps of three mechanisms, and the matrices that mix heads.

    python examples/attention_maps.py [FOLDER]

A tiny model of each mechanism learns to copy: the second half of a sequence repeats the first, so that every
token has one place to look at. The pictures go to FOLDER, ``attention_maps`` by default. The cells (``# %%``)
run one by one in an editor that knows them. Needs matplotlib.
"""

# %% What it takes
import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import torch
from matplotlib import pyplot
from torch import nn

import headloom

VOCABULARY, HALF, DIM, HEADS, STEPS = 10, 12, 48, 4, 250
FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else "attention_maps")


# %% A task whose answer lies at a known distance: a b c | a b c
def batch(generator, rows=32):
    half = torch.randint(VOCABULARY, (rows, HALF), generator=generator)
    return half.repeat(1, 2)


def model_of(mechanism, **options):
    torch.manual_seed(1)
    config = headloom.nn.TransformerConfig(
        VOCABULARY,
        dim=DIM,
        heads=HEADS,
        ffn=2 * DIM,
        layers=2,
        causal=True,
        mixer=mechanism,
        mixer_options=options,
    )
    return headloom.nn.LanguageModel(config)


def train(model):
    generator = torch.Generator().manual_seed(2)
    optimizer = torch.optim.Adam(model.parameters(), 4e-3)
    losses = []
    for _ in range(STEPS):
        tokens = batch(generator)
        logits = model(tokens[:, :-1])[:, HALF - 1 :]  # the second half can be known
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, HALF:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-20:]) / 20


# %% A map: an operator is linear in its values, so the identity in their place gives the weights
OPERATORS = ("dot_product_attention", "h_attention", "talking_heads_attention")


def maps_of(model, tokens):
    """[layers][heads, T, T]: every call of an operator, made again with the identity for values."""
    maps, operators = [], {name: getattr(torch.ops.headloom, name) for name in OPERATORS}

    def watch(operator):
        def call(q, k, v, *arguments, **keywords):
            eye = torch.eye(k.size(2)).expand(*v.shape[:2], -1, -1)
            maps.append(operator(q, k, eye, *arguments, **keywords)[0])
            return operator(q, k, v, *arguments, **keywords)

        return call

    for name, operator in operators.items():
        setattr(torch.ops.headloom, name, watch(operator))
    try:
        with torch.no_grad():
            model.eval()(tokens)
    finally:
        for name, operator in operators.items():
            setattr(torch.ops.headloom, name, operator)
    return maps


def draw(maps, file, title):
    figure, axes = pyplot.subplots(len(maps), HEADS, figsize=(9, 2.4 * len(maps)), squeeze=False)
    for layer, heads in enumerate(maps):
        for head, weights in enumerate(heads):
            axes[layer, head].imshow(weights, vmin=0, vmax=1)
            axes[layer, head].set_title(f"layer {layer}, head {head}", fontsize=8)
            axes[layer, head].axis("off")
    figure.suptitle(title)
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def share_at_the_source(maps):
    """Of the weights of the second half, the largest share that a head gives to the token to be copied: the
    one after this token's first appearance."""
    rows = torch.arange(HALF, 2 * HALF - 1)
    return max(heads[:, rows, rows - HALF + 1].mean(-1).max().item() for heads in maps)


# %% Attention maps of three mechanisms
FOLDER.mkdir(parents=True, exist_ok=True)
RUNS = {
    "dot_product": {},
    "h_transformer": {"block_size": 4},
    "talking_heads": {"init": "identity"},
}
sample = batch(torch.Generator().manual_seed(3), rows=1)[:, :-1]
models = {}
for mechanism, options in RUNS.items():
    models[mechanism] = model_of(mechanism, **options)
    loss = train(models[mechanism])
    maps = maps_of(models[mechanism], sample)
    draw(maps, FOLDER / f"{mechanism}.png", f"{mechanism}: loss {loss:.3f}")
    share = share_at_the_source(maps)
    print(f"{mechanism:14} loss {loss:.3f}, {share:.0%} of a head's weights where the copy is from")

# %% How the heads talk: the mixes of the logits and of the weights, layer by layer
layers = [block.mixer for block in models["talking_heads"].transformer.blocks]
figure, axes = pyplot.subplots(len(layers), 2, figsize=(6, 2.8 * len(layers)), squeeze=False)
for row, mixer in zip(axes, layers, strict=True):
    for place, name in zip(row, ("logits_proj", "weights_proj"), strict=True):
        mix = getattr(mixer, name).detach()
        bound = mix.abs().max().item()
        picture = place.imshow(mix, cmap="PuOr", vmin=-bound, vmax=bound)
        place.set(title=name, xlabel="to head", ylabel="from head")
        figure.colorbar(picture, ax=place)
figure.tight_layout()
figure.savefig(FOLDER / "head_mixes.svg")
print(f"pictures in {FOLDER}/: {', '.join(sorted(path.name for path in FOLDER.iterdir()))}")

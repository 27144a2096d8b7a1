"""Swaps the attention of an existing torch.nn model, without touching the rest of it.

A torch.nn.TransformerEncoder learns to reverse sequences. Then its attention is replaced:

1. by headloom's kernel for the same attention: the outputs stay;
2. by talking heads that start as the identity and keep the trained weights: the outputs stay too,
   and training goes on with heads that talk;
3. by lightweight convolutions, which have no weights in common with attention: training starts over
   there. Their kernels reach 3 and 7 tokens, not a whole sequence, and the loss shows it.

    python examples/swap_attention.py
"""

import torch
from torch import nn

import headloom

VOCABULARY, LENGTH, DIM, HEADS, LAYERS = 12, 16, 32, 4, 2


class Reverser(nn.Module):
    """A model of nobody in particular: plain torch.nn."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, DIM)
        self.positions = nn.Parameter(0.1 * torch.randn(LENGTH, DIM))
        layer = nn.TransformerEncoderLayer(DIM, HEADS, 4 * DIM, 0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = nn.Linear(DIM, VOCABULARY)

    def forward(self, tokens, padding=None):  # [B, T] -> [B, T, V]
        x = self.tokens(tokens) + self.positions[: tokens.size(1)]
        return self.head(self.encoder(x, src_key_padding_mask=padding))


class Attention(nn.Module):
    """A mixer of headloom, called as torch.nn.TransformerEncoderLayer calls its self_attn."""

    batch_first = True
    in_proj_bias = None  # keeps torch away from its fused inference path, which reads plain weights

    def __init__(self, mixer):
        super().__init__()
        self.mixer = mixer

    def forward(self, query, key, value, *, key_padding_mask=None, attn_mask=None, **kwargs):
        assert query is key and key is value and attn_mask is None, (
            "self-attention with padding only"
        )
        if key_padding_mask is not None and key_padding_mask.is_floating_point():
            key_padding_mask = key_padding_mask < 0  # as torch.nn hands it on: -inf at padding
        return self.mixer(query, key_padding_mask), None


@torch.no_grad()
def take_weights(mixer, attention):
    """The projections of torch.nn.MultiheadAttention, into a mixer that has the same four."""
    names = ("q_proj", "k_proj", "v_proj")
    weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    for name, weight, bias in zip(names, weights, biases, strict=True):
        getattr(mixer, name).weight.copy_(weight)
        getattr(mixer, name).bias.copy_(bias)
    mixer.out_proj.load_state_dict(attention.out_proj.state_dict())


def swap(model, mechanism, keep_weights=True, **options):
    """Replaces every torch.nn.MultiheadAttention inside, in place."""
    layers = [m for m in model.modules() if isinstance(m, nn.TransformerEncoderLayer)]
    for index, layer in enumerate(layers):
        place = {"layer": index, "layers": len(layers)}
        mixer = headloom.nn.make_mixer(mechanism, DIM, HEADS, **place, **options)
        if keep_weights:
            take_weights(mixer, layer.self_attn)
        layer.self_attn = Attention(mixer)
    return model


def batch(generator, rows=32):
    tokens = torch.randint(1, VOCABULARY, (rows, LENGTH), generator=generator)
    lengths = torch.randint(LENGTH // 2, LENGTH + 1, (rows, 1), generator=generator)
    padding = torch.arange(LENGTH) >= lengths
    places = (lengths - 1 - torch.arange(LENGTH)).clamp_min(0)
    return tokens, tokens.gather(1, places), padding


def train(model, steps, seed):
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    recent = []
    for _ in range(steps):
        tokens, targets, padding = batch(generator)
        logits = model(tokens, padding)
        loss = nn.functional.cross_entropy(logits[~padding], targets[~padding])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recent = [*recent[-19:], loss.item()]
    return sum(recent) / len(recent)


def outputs(model):
    tokens, _, padding = batch(torch.Generator().manual_seed(99))
    with torch.no_grad():
        return model.eval()(tokens, padding)[~padding]


def main():
    torch.manual_seed(1)
    model = Reverser()
    print(f"torch.nn          loss {train(model, 400, seed=1):.3f}")
    before, trained = outputs(model), model.state_dict()

    def copy():
        other = Reverser()
        other.load_state_dict(trained)
        return other

    for mechanism, options in (("dot_product", {}), ("talking_heads", {"init": "identity"})):
        if mechanism not in headloom.nn.mixers():
            print(f"{mechanism:17} is not in this build")
            continue
        model = swap(copy(), mechanism, **options)
        change = (outputs(model) - before).abs().max().item()
        print(f"{mechanism:17} outputs changed by {change:.1e}", end="")
        print(f"; loss {train(model.train(), 200, seed=2):.3f} after 200 steps more")
    model = swap(copy(), "light_conv", keep_weights=False)
    print(f"light_conv        loss {train(model.train(), 200, seed=2):.3f} after 200 steps")


if __name__ == "__main__":
    main()

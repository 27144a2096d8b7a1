"""A light-conv or dynamic-conv translation model as fairseq wires it, from its state dict: plain torch
operations, [T, B, C] layout, loops over taps. Independent of headloom."""

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

PADDING = 1


@dataclass(frozen=True)
class Model:
    conv: str  # "lightweight" or "dynamic"
    glu: bool
    pre_norm: bool
    new_names: bool  # of the encoder's layer norms
    heads: int = 2
    dim: int = 8
    ffn: int = 12
    encoder_kernels: tuple = (3, 7)
    decoder_kernels: tuple = (3, 5)
    source_vocabulary: int = 11
    target_vocabulary: int = 13
    shared: bool = False  # one table for all three embeddings
    learned: int = 0  # learned positions: their count
    flat_weight: bool = False  # lightweight weights [H, K], as the CUDA module stores them
    joined_attention: bool = False  # in_proj_weight, as before 2019
    unused_bias: bool = False  # the scriptable dynamic convolution's


LIGHT = Model(
    "lightweight", glu=True, pre_norm=False, new_names=False, target_vocabulary=11, shared=True
)
DYNAMIC = Model(
    "dynamic",
    glu=False,
    pre_norm=True,
    new_names=True,
    heads=4,
    learned=20,
    joined_attention=True,
    unused_bias=True,
)


def _linear(state, name, outputs, inputs, draw):
    state[f"{name}.weight"] = draw(outputs, inputs) / math.sqrt(inputs)
    state[f"{name}.bias"] = 0.3 * draw(outputs)


def _norm(state, name, model, draw):
    state[f"{name}.weight"] = 1 + 0.3 * draw(model.dim)
    state[f"{name}.bias"] = 0.3 * draw(model.dim)


def _layer(state, prefix, kernel, model, draw, decoder):
    dim = model.dim
    _linear(state, f"{prefix}.linear1", 2 * dim if model.glu else dim, dim, draw)
    if model.conv == "lightweight":
        shape = (model.heads, kernel) if model.flat_weight else (model.heads, 1, kernel)
        state[f"{prefix}.conv.weight"] = draw(*shape)
    else:
        state[f"{prefix}.conv.weight_linear.weight"] = draw(model.heads * kernel, dim)
        if model.unused_bias:
            state[f"{prefix}.conv.conv_bias"] = torch.full((dim,), math.nan, dtype=torch.float64)
    _linear(state, f"{prefix}.linear2", dim, dim, draw)
    if decoder:
        names = ("conv_layer_norm", "encoder_attn_layer_norm", "final_layer_norm")
        if model.joined_attention:
            state[f"{prefix}.encoder_attn.in_proj_weight"] = draw(3 * dim, dim) / math.sqrt(dim)
            state[f"{prefix}.encoder_attn.in_proj_bias"] = 0.3 * draw(3 * dim)
            parts = ("out_proj",)
        else:
            parts = ("q_proj", "k_proj", "v_proj", "out_proj")
        for part in parts:
            _linear(state, f"{prefix}.encoder_attn.{part}", dim, dim, draw)
    else:
        names = (
            ("layer_norm1", "layer_norm2")
            if model.new_names
            else ("layer_norms.0", "layer_norms.1")
        )
    for name in names:
        _norm(state, f"{prefix}.{name}", model, draw)
    _linear(state, f"{prefix}.fc1", model.ffn, dim, draw)
    _linear(state, f"{prefix}.fc2", dim, model.ffn, draw)


def make_state(model, seed=0):
    """Random weights under fairseq's names, float64."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    state = {}
    scale = 1 / math.sqrt(model.dim)
    state["encoder.embed_tokens.weight"] = scale * draw(model.source_vocabulary, model.dim)
    state["decoder.embed_tokens.weight"] = (
        state["encoder.embed_tokens.weight"]
        if model.shared
        else scale * draw(model.target_vocabulary, model.dim)
    )
    if not model.shared:
        state["decoder.embed_out"] = scale * draw(model.target_vocabulary, model.dim)
    for stack, kernels in (("encoder", model.encoder_kernels), ("decoder", model.decoder_kernels)):
        if model.learned:
            rows = model.learned + PADDING + 1
            state[f"{stack}.embed_positions.weight"] = 0.5 * draw(rows, model.dim)
        else:
            state[f"{stack}.embed_positions._float_tensor"] = torch.zeros(1, dtype=torch.float64)
        state[f"{stack}.version"] = torch.tensor([3.0])
        for index, kernel in enumerate(kernels):
            _layer(state, f"{stack}.layers.{index}", kernel, model, draw, stack == "decoder")
        if model.pre_norm:
            _norm(state, f"{stack}.layer_norm", model, draw)
    return state


def _apply(state, name, x):
    return functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def _normalise(state, name, x):
    return functional.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def _convolve(state, prefix, x, model, left):
    """x [T, B, C]; tap k of position t reads position t + k - left."""
    time, batch, channels = x.shape
    if model.conv == "lightweight":
        weights = state[f"{prefix}.weight"].reshape(model.heads, -1).softmax(-1)
        weights = weights.expand(time, batch, -1, -1)  # [T, B, H, K]
    else:
        logits = functional.linear(x, state[f"{prefix}.weight_linear.weight"])
        weights = logits.view(time, batch, model.heads, -1).softmax(-1)
    out = torch.zeros_like(x)
    for t in range(time):
        for k in range(weights.size(-1)):
            if 0 <= t + k - left < time:
                for c in range(channels):
                    head = c * model.heads // channels
                    out[t, :, c] += weights[t, :, head, k] * x[t + k - left, :, c]
    return out


def conv_block(state, prefix, x, kernel, model, padding_mask, causal):
    """linear1, gate, zeros at padding (encoder), convolution, linear2; x [T, B, C]."""
    x = _apply(state, f"{prefix}.linear1", x)
    if model.glu:
        value, gate = x.chunk(2, -1)
        x = value * torch.sigmoid(gate)
    if padding_mask is not None:
        x = x.masked_fill(padding_mask.t().unsqueeze(-1), 0)
    x = _convolve(state, f"{prefix}.conv", x, model, kernel - 1 if causal else kernel // 2)
    return _apply(state, f"{prefix}.linear2", x)


def _attention_part(state, prefix, part, x):
    if f"{prefix}.in_proj_weight" not in state:
        return _apply(state, f"{prefix}.{part}_proj", x)
    index = "qkv".index(part)
    weight = state[f"{prefix}.in_proj_weight"].chunk(3)[index]
    return functional.linear(x, weight, state[f"{prefix}.in_proj_bias"].chunk(3)[index])


def _attend(state, prefix, x, memory, padding_mask, heads):
    def split(y):  # [T, B, C] -> [B, H, T, D]
        return y.view(y.size(0), y.size(1), heads, -1).permute(1, 2, 0, 3)

    q = split(_attention_part(state, prefix, "q", x))
    k = split(_attention_part(state, prefix, "k", memory))
    v = split(_attention_part(state, prefix, "v", memory))
    logits = (q * q.size(-1) ** -0.5) @ k.transpose(-1, -2)
    logits = logits.masked_fill(padding_mask[:, None, None, :], -math.inf)
    mixed = (logits.softmax(-1) @ v).permute(2, 0, 1, 3).flatten(2)
    return _apply(state, f"{prefix}.out_proj", mixed)


def _positions(state, stack, tokens, model):
    """Counted from PADDING + 1 over the tokens that are not padding; padding itself has none."""
    real = tokens.ne(PADDING)
    numbers = real.cumsum(1) * real + PADDING
    name = f"{stack}.embed_positions.weight"
    if name in state:
        return state[name][numbers]
    half = model.dim // 2
    rates = torch.exp(-torch.arange(half, dtype=torch.float64) * math.log(10000) / (half - 1))
    angles = numbers.unsqueeze(-1) * rates
    table = torch.cat([angles.sin(), angles.cos()], -1)
    return table * real.unsqueeze(-1)


def _embed(state, stack, tokens, model):
    x = math.sqrt(model.dim) * state[f"{stack}.embed_tokens.weight"][tokens]
    return (x + _positions(state, stack, tokens, model)).transpose(0, 1)


def _residual(state, norm, x, model, term):
    if model.pre_norm:
        return x + term(_normalise(state, norm, x))
    return _normalise(state, norm, x + term(x))


def _feed_forward(state, prefix, x):
    return _apply(state, f"{prefix}.fc2", _apply(state, f"{prefix}.fc1", x).relu())


def forward(state, model, source, target):
    """Logits [B, T, V] of source [B, S] and target [B, T]; PADDING marks padding."""
    padding = source.eq(PADDING)
    x = _embed(state, "encoder", source, model)
    norms = (
        ("layer_norm1", "layer_norm2") if model.new_names else ("layer_norms.0", "layer_norms.1")
    )
    for i, kernel in enumerate(model.encoder_kernels):
        p = f"encoder.layers.{i}"
        x = _residual(
            state,
            f"{p}.{norms[0]}",
            x,
            model,
            lambda y, p=p, k=kernel: conv_block(state, p, y, k, model, padding, causal=False),
        )
        x = _residual(state, f"{p}.{norms[1]}", x, model, lambda y, p=p: _feed_forward(state, p, y))
    memory = _normalise(state, "encoder.layer_norm", x) if model.pre_norm else x
    x = _embed(state, "decoder", target, model)
    for i, kernel in enumerate(model.decoder_kernels):
        p = f"decoder.layers.{i}"
        x = _residual(
            state,
            f"{p}.conv_layer_norm",
            x,
            model,
            lambda y, p=p, k=kernel: conv_block(state, p, y, k, model, None, causal=True),
        )
        x = _residual(
            state,
            f"{p}.encoder_attn_layer_norm",
            x,
            model,
            lambda y, p=p: _attend(state, f"{p}.encoder_attn", y, memory, padding, model.heads),
        )
        x = _residual(
            state, f"{p}.final_layer_norm", x, model, lambda y, p=p: _feed_forward(state, p, y)
        )
    if model.pre_norm:
        x = _normalise(state, "decoder.layer_norm", x)
    output = state.get("decoder.embed_out", state["decoder.embed_tokens.weight"])
    return functional.linear(x, output).transpose(0, 1)

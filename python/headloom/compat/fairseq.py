"""Light-conv and dynamic-conv translation models of fairseq (its architecture "lightconv").

>>> checkpoint = torch.load("checkpoint_best.pt", weights_only=False)       # doctest: +SKIP
>>> imported = convert(checkpoint["model"], encoder_heads=16, decoder_heads=16)   # doctest: +SKIP
>>> imported.save("model.safetensors")                                      # doctest: +SKIP

The file holds what the C++ class ``headloom::nn::EncoderDecoder`` is made of, under its names.

=============================================  ==================================================
fairseq                                        headloom
=============================================  ==================================================
{encoder,decoder}.embed_tokens.weight          source_embedding.weight, target_embedding.weight;
                                               the first alone when both are equal
decoder.embed_out, decoder.output_projection   output.weight, unless it equals the target's
                                               embedding
embed_positions.weight (learned)               {source,target}_positions, without the rows up to
                                               the padding's
layers.i.linear1, linear2                      i.mixer.in_proj, i.mixer.out_proj
layers.i.conv.weight [H, 1, K] or [H, K]       i.mixer.weight [H, K]
layers.i.conv.weight_linear                    i.mixer.kernel_proj
layers.i.conv.conv_bias, conv.bias             i.mixer.conv_bias, if asked for
encoder layers.i.layer_norms.0, layer_norm1    i.mixer_norm
encoder layers.i.layer_norms.1, layer_norm2    i.ffn_norm
decoder layers.i.conv_layer_norm               i.mixer_norm
decoder layers.i.encoder_attn_layer_norm       i.cross_norm
decoder layers.i.final_layer_norm              i.ffn_norm
layers.i.encoder_attn.{q,k,v,out}_proj         i.cross.{q,k,v,out}_proj
layers.i.encoder_attn.in_proj_{weight,bias}    the same three, one above the other
layers.i.fc1, fc2                              i.ffn_in, i.ffn_out
{encoder,decoder}.layer_norm                   encoder_norm, decoder_norm (pre-norm)
=============================================  ==================================================

Left out, and listed in ``Imported.dropped``: ``version`` and ``_float_tensor``, which hold no weights;
output projections that equal an embedding; and a bias of the convolution unless ``conv_bias`` is set,
because fairseq registers one that it never uses, with values that were never written. Anything else
that is not understood is refused by name.

Sinusoidal positions are not in the state dict. They are made here, in fairseq's form: all sines, then
all cosines, with frequencies 10000^(-i / (C / 2 - 1)), counted from ``padding_idx + 1``.
"""

import json
import math
from dataclasses import dataclass, field

import torch

from headloom import _safetensors

__all__ = ["Imported", "convert"]

_WHERE = "fairseq import"
_ENCODER_NORMS = {
    "mixer_norm": ("layer_norms.0", "layer_norm1"),
    "ffn_norm": ("layer_norms.1", "layer_norm2"),
}
_DECODER_NORMS = {
    "mixer_norm": ("conv_layer_norm",),
    "cross_norm": ("encoder_attn_layer_norm",),
    "ffn_norm": ("final_layer_norm",),
}


@dataclass
class Imported:
    """Weights by headloom's names, the fields of ``EncoderDecoderConfig`` that they fit, and the names of
    the entries that were left out."""

    weights: dict
    config: dict
    dropped: list = field(default_factory=list)

    def save(self, path):
        """Writes a safetensors file; the configuration goes into its metadata, as JSON, under
        "headloom.config"."""
        metadata = {"format": "pt", "headloom.config": json.dumps(self.config, sort_keys=True)}
        _safetensors.write(path, self.weights, metadata)


def _refuse(expected, found, advice=""):
    raise ValueError(f"{_WHERE}: expected {expected}; found {found}. {advice}".rstrip())


class _Source:
    """The state dict, with what is still to be read."""

    def __init__(self, state_dict):
        if isinstance(state_dict.get("model"), dict):
            _refuse("a state dict", "a whole checkpoint", 'Pass checkpoint["model"].')
        self.left = dict(state_dict)
        self.dropped = []

    def has(self, name):
        return name in self.left

    def take(self, name):
        if name not in self.left:
            _refuse(f"an entry {name}", "none of that name")
        return self.left.pop(name).detach().contiguous().clone()

    def drop(self, name):
        del self.left[name]
        self.dropped.append(name)

    def layers(self, stack):
        prefix = f"{stack}.layers."
        numbers = {
            int(name[len(prefix) :].split(".")[0]) for name in self.left if name.startswith(prefix)
        }
        if sorted(numbers) != list(range(len(numbers))) or not numbers:
            _refuse(f"{stack} layers 0, 1, ...", f"layers {sorted(numbers)}")
        return len(numbers)


class _Layer:
    """One layer of a stack: reads with a prefix and writes with another."""

    def __init__(self, source, weights, stack, index):
        self.source = source
        self.weights = weights
        self.prefix = f"{stack}.layers.{index}."
        self.target = f"{stack}.{index}."

    def has(self, name):
        return self.source.has(self.prefix + name)

    def take(self, name):
        return self.source.take(self.prefix + name)

    def put(self, name, tensor):
        self.weights[self.target + name] = tensor
        return tensor

    def both(self, theirs, ours):
        self.put(f"{ours}.bias", self.take(f"{theirs}.bias"))
        return self.put(f"{ours}.weight", self.take(f"{theirs}.weight"))

    def either(self, names, ours):
        found = [name for name in names if self.has(f"{name}.weight")]
        if len(found) != 1:
            _refuse(f"one of {', '.join(self.prefix + name for name in names)}", str(found))
        self.both(found[0], ours)


def _read_mixer(layer, heads, conv_bias):
    """The convolution and its projections; returns what its configuration follows from."""
    in_proj = layer.both("linear1", "mixer.in_proj")
    channels = layer.both("linear2", "mixer.out_proj").size(1)
    if in_proj.size(0) not in (channels, 2 * channels):
        _refuse(
            f"{layer.prefix}linear1.weight of {channels} or {2 * channels} rows", in_proj.size(0)
        )
    form = {"conv_dim": channels, "glu": in_proj.size(0) == 2 * channels, "kernel_bias": False}
    if layer.has("conv.weight"):
        form["name"] = "light_conv"
        weight = layer.take("conv.weight")
        if tuple(weight.shape[:-1]) not in ((heads, 1), (heads,)):
            _refuse(
                f"{layer.prefix}conv.weight of shape [{heads}, 1, K] or [{heads}, K]",
                f"shape {list(weight.shape)}",
                "Are the head counts those of the model?",
            )
        layer.put("mixer.weight", weight.reshape(heads, -1))
        form["kernel_size"] = weight.size(-1)
    else:
        form["name"] = "dynamic_conv"
        weight = layer.put("mixer.kernel_proj.weight", layer.take("conv.weight_linear.weight"))
        if weight.size(0) % heads or weight.size(1) != channels:
            _refuse(
                f"{layer.prefix}conv.weight_linear.weight of shape [{heads} K, {channels}]",
                f"shape {list(weight.shape)}",
                "Are the head counts those of the model?",
            )
        form["kernel_size"] = weight.size(0) // heads
        if layer.has("conv.weight_linear.bias"):
            layer.put("mixer.kernel_proj.bias", layer.take("conv.weight_linear.bias"))
            form["kernel_bias"] = True
    bias = "conv.bias" if layer.has("conv.bias") else "conv.conv_bias"
    if conv_bias:
        layer.put("mixer.conv_bias", layer.take(bias).reshape(-1))
    elif layer.has(bias):
        layer.source.drop(layer.prefix + bias)
    return form


def _read_cross(layer):
    parts = ("q_proj", "k_proj", "v_proj")
    for kind in ("weight", "bias"):
        joined = f"encoder_attn.in_proj_{kind}"
        if layer.has(joined):
            for part, tensor in zip(parts, layer.take(joined).chunk(3), strict=True):
                layer.put(f"cross.{part}.{kind}", tensor.clone())
        else:
            for part in parts:
                layer.put(f"cross.{part}.{kind}", layer.take(f"encoder_attn.{part}.{kind}"))
    layer.both("encoder_attn.out_proj", "cross.out_proj")


def _read_stack(source, weights, stack, heads, conv_bias):
    """All layers of an encoder or decoder; returns their count and mixer's configuration."""
    norms = _ENCODER_NORMS if stack == "encoder" else _DECODER_NORMS
    forms, kernel_sizes = [], []
    for index in range(source.layers(stack)):
        layer = _Layer(source, weights, stack, index)
        form = _read_mixer(layer, heads, conv_bias)
        kernel_sizes.append(form.pop("kernel_size"))
        forms.append(form)
        for ours, theirs in norms.items():
            layer.either(theirs, ours)
        if stack == "decoder":
            _read_cross(layer)
        layer.both("fc1", "ffn_in")
        layer.both("fc2", "ffn_out")
        if form != forms[0]:
            _refuse(f"{stack} layers of one kind", f"{forms[0]} and {form}")
    form = forms[0]
    options = {"kernel_sizes": kernel_sizes, "glu": form["glu"], "conv_dim": form["conv_dim"]}
    if conv_bias:
        options["conv_bias"] = True
    if form["kernel_bias"]:
        options["kernel_bias"] = True
    return len(forms), {"name": form["name"], "heads": heads, "options": options}


def _sinusoids(max_length, first, like):
    """Rows of fairseq's positions from `first` on: [max_length, C]."""
    dim = like.size(1)
    half = dim // 2
    if half < 2:
        _refuse("a width of at least 4 for sinusoidal positions", dim)
    rates = torch.exp(torch.arange(half, dtype=torch.float64) * -(math.log(10000) / (half - 1)))
    angles = torch.arange(first, first + max_length, dtype=torch.float64)[:, None] * rates
    table = torch.cat([angles.sin(), angles.cos()], dim=1)
    return torch.nn.functional.pad(table, (0, dim - 2 * half)).to(like.dtype)


def _read_positions(source, weights, side, stack, like, positions, max_length, padding_idx):
    """Writes the table of one side; returns which kind it is and its length."""
    name = f"{stack}.embed_positions.weight"
    if source.has(name):
        table = source.take(name)[padding_idx + 1 :].clone()
        weights[f"{side}_positions"] = table
        return "learned", table.size(0)
    if positions == "sinusoidal":
        weights[f"{side}_positions"] = _sinusoids(max_length, padding_idx + 1, like)
    return positions, max_length


def _read_embeddings(source, weights):
    encoder = weights["source_embedding.weight"] = source.take("encoder.embed_tokens.weight")
    decoder = source.take("decoder.embed_tokens.weight")
    shared = torch.equal(encoder, decoder)
    if shared:
        source.dropped.append("decoder.embed_tokens.weight")
    else:
        weights["target_embedding.weight"] = decoder
    tied = True
    for name in ("decoder.embed_out", "decoder.output_projection.weight"):
        if not source.has(name):
            continue
        output = source.take(name)
        if torch.equal(output, decoder):
            source.dropped.append(name)
        else:
            weights["output.weight"] = output
            tied = False
    return encoder, decoder, {"share_embeddings": shared, "tie_output": tied}


def _read_final_norms(source, weights):
    found = [stack for stack in ("encoder", "decoder") if source.has(f"{stack}.layer_norm.weight")]
    if len(found) == 1:
        _refuse(
            "final norms in both stacks (pre-norm) or in neither (post-norm)", f"one in {found[0]}"
        )
    for stack in found:
        for kind in ("weight", "bias"):
            weights[f"{stack}_norm.{kind}"] = source.take(f"{stack}.layer_norm.{kind}")
    return "pre" if found else "post"


def _drop_the_known(source):
    for name in list(source.left):
        if name.rsplit(".", 1)[-1] in ("version", "_float_tensor"):
            source.drop(name)


def convert(
    state_dict,
    *,
    encoder_heads,
    decoder_heads,
    positions="sinusoidal",
    max_length=1024,
    padding_idx=1,
    conv_bias=False,
    dtype=torch.float32,
):
    """A state dict of fairseq's light-conv model as weights of ``headloom::nn::EncoderDecoder``.

    Args:
        state_dict: ``checkpoint["model"]``.
        encoder_heads, decoder_heads: fairseq's ``encoder_attention_heads`` and
            ``decoder_attention_heads``; the latter is also that of the attention to the source.
        positions: "sinusoidal" or "none", when the state dict has no learned ones.
        max_length: rows of sinusoidal positions.
        padding_idx: the padding's row of the vocabulary, from which fairseq counts positions.
        conv_bias: whether the biases of the convolutions were in use; fairseq's models leave it off.
        dtype: of the weights, which is that of the model that loads them; None keeps what is there
            (fairseq saves float16 when it trains in it).

    Returns:
        :class:`Imported`

    Raises:
        ValueError: names the entry that is missing, unknown or of another shape.
    """
    if positions not in ("sinusoidal", "none"):
        _refuse('positions "sinusoidal" or "none"', f'"{positions}"')
    source = _Source(state_dict)
    weights = {}
    encoder, decoder, config = _read_embeddings(source, weights)
    config |= {
        "source_vocabulary": encoder.size(0),
        "target_vocabulary": decoder.size(0),
        "dim": encoder.size(1),
        "activation": "relu",
    }
    kinds = {
        _read_positions(source, weights, side, stack, encoder, positions, max_length, padding_idx)
        for side, stack in (("source", "encoder"), ("target", "decoder"))
    }
    if len(kinds) > 1:
        _refuse("positions of one kind and length on both sides", str(sorted(kinds)))
    (config["positions"], config["max_length"]) = kinds.pop()
    for stack, heads in (("encoder", encoder_heads), ("decoder", decoder_heads)):
        layers, mixer = _read_stack(source, weights, stack, heads, conv_bias)
        config |= {f"{stack}_layers": layers, f"{stack}_mixer": mixer}
    config["cross_mixer"] = {"name": "dot_product", "heads": decoder_heads, "options": {}}
    config["ffn"] = weights["encoder.0.ffn_in.weight"].size(0)
    config["norm"] = _read_final_norms(source, weights)
    _drop_the_known(source)
    if source.left:
        _refuse(
            "entries of a light-conv translation model", f"also {', '.join(sorted(source.left))}"
        )
    if dtype is not None:
        weights = {name: tensor.to(dtype) for name, tensor in weights.items()}
    return Imported(weights, config, source.dropped)

"""Encoders, decoder-only stacks and encoder-decoders of any mixer.

B batch, T tokens, S source tokens, C model width.
"""

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from .attention import Attention, CrossAttention, Masks, Setting, Symmetric
from .convolutions import DynamicConvolution, LightConvolution
from .hierarchical import HierarchicalAttention
from .talking_heads import CrossTalkingHeads, TalkingHeads
from .talking_heads import forms_of as forms_of_talking_heads

MIXERS = {
    "dot_product": Attention,
    "symmetric": Symmetric,
    "talking_heads": TalkingHeads,
    "light_conv": LightConvolution,
    "dynamic_conv": DynamicConvolution,
    "h_transformer": HierarchicalAttention,
}
CROSS_MIXERS = {"dot_product": CrossAttention, "talking_heads": CrossTalkingHeads}
# Tasks whose models have an encoder and a decoder.
PAIRS = ("translation", "span_corruption", "text_to_text")


class Config(NamedTuple):
    """[model], [mixer] and [cross_mixer] of a resolved recipe, and the forms that mixers and cross attention
    take."""

    model: dict
    mixer: dict
    cross_mixer: dict
    form: str
    cross_form: str

    @classmethod
    def of(cls, recipe, forms):
        return cls(recipe["model"], recipe["mixer"], cross_mixer_of(recipe), *forms)

    def setting(self, options, form, causal, layer):
        model = self.model
        return Setting(
            model["dim"], model["heads"], causal, model["mixing_dropout"], layer, options, form
        )

    def make_mixer(self, causal, layer):
        made = MIXERS[self.mixer["name"]]
        return made(self.setting(self.mixer, self.form, causal, layer))

    def make_cross_mixer(self, layer):
        made = CROSS_MIXERS[self.cross_mixer["name"]]
        return made(self.setting(self.cross_mixer, self.cross_form, False, layer))

    def make_norm(self):
        made = nn.LayerNorm if self.model["norm_type"] == "layer" else RMSNorm
        return made(self.model["dim"], self.model["norm_eps"])


def cross_mixer_of(recipe):
    return recipe.get("cross_mixer", {"name": "dot_product"})


def forms_of_mixer(options):
    if options["name"] == "talking_heads":
        return tuple(forms_of_talking_heads(options))
    return MIXERS[options["name"]].FORMS


def forms_of(recipe):
    """The (form, cross_form) that a model may have. Where the mixer has the forms of cross attention, both
    take the same."""
    own = forms_of_mixer(recipe["mixer"])
    if recipe["task"]["name"] not in PAIRS:
        return [(form, "") for form in own]
    cross = forms_of_mixer(cross_mixer_of(recipe))
    if own == cross:
        return [(form, form) for form in own]
    return [(form, cross[-1]) for form in own] + [(own[0], form) for form in cross[:-1]]


class RMSNorm(nn.Module):
    """As T5 writes it; torch.nn.RMSNorm takes longer on a processor."""

    def __init__(self, dim, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.empty(dim)), eps

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


class Block(nn.Module):
    def __init__(self, config, causal, layer, cross=False):
        super().__init__()
        model = config.model
        dim, gated = model["dim"], model["activation"] == "gated_gelu"
        self.pre_norm = model["norm"] == "pre"
        self.activation = F.gelu if model["activation"] == "gelu" else F.relu
        self.mixer_norm = config.make_norm()
        self.mixer = config.make_mixer(causal, layer)
        if cross:
            self.cross_norm = config.make_norm()
            self.cross = config.make_cross_mixer(layer)
        self.ffn_norm = config.make_norm()
        self.ffn_in = nn.Linear(dim, model["ffn"], bias=not gated)
        self.ffn_gate = nn.Linear(dim, model["ffn"], bias=False) if gated else None
        self.ffn_out = nn.Linear(model["ffn"], dim, bias=not gated)
        self.dropout = nn.Dropout(model["dropout"])

    def feed_forward(self, x):
        if self.ffn_gate is None:
            return self.ffn_out(self.activation(self.ffn_in(x)))
        return self.ffn_out(F.gelu(self.ffn_gate(x), approximate="tanh") * self.ffn_in(x))

    def forward(self, x, masks, memory=None, memory_masks=None):
        if self.pre_norm:
            x = x + self.dropout(self.mixer(self.mixer_norm(x), masks))
            if memory is not None:
                x = x + self.dropout(self.cross(self.cross_norm(x), memory, memory_masks))
            return x + self.dropout(self.feed_forward(self.ffn_norm(x)))
        x = self.mixer_norm(x + self.dropout(self.mixer(x, masks)))
        if memory is not None:
            x = self.cross_norm(x + self.dropout(self.cross(x, memory, memory_masks)))
        return self.ffn_norm(x + self.dropout(self.feed_forward(x)))


def add_positions(module, name, model):
    """A parameter or a buffer [max_length, C]; its values come with the weights."""
    table = torch.empty(model["max_length"], model["dim"])
    if model["positions"] == "learned":
        module.register_parameter(name, nn.Parameter(table))
    elif model["positions"] == "sinusoidal":
        module.register_buffer(name, table)


class Transformer(nn.Module):
    """Tokens [B, T] -> [B, T, C]."""

    def __init__(self, config, vocabulary, causal=False):
        super().__init__()
        model = config.model
        self.scale = math.sqrt(model["dim"]) if model["positions"] == "sinusoidal" else 1.0
        self.embedding = nn.Embedding(vocabulary, model["dim"])
        add_positions(self, "positions", model)
        if model["segments"]:
            self.segments = nn.Parameter(torch.empty(model["segments"], model["dim"]))
        self.dropout = nn.Dropout(model["dropout"])
        self.blocks = nn.ModuleList(
            Block(config, causal, layer) for layer in range(model["layers"])
        )
        if model["norm"] == "pre":
            self.final_norm = config.make_norm()

    def forward(self, tokens, masks=None, kinds=None):
        """kinds [B, T]: the segment that a token is of."""
        masks = masks or Masks()
        x = self.embedding(tokens)
        if self.scale != 1.0:
            x = x * self.scale
        if hasattr(self, "positions"):
            x = x + self.positions[: tokens.size(1)]
        if kinds is not None:
            x = x + F.embedding(kinds, self.segments)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, masks)
        return self.final_norm(x) if hasattr(self, "final_norm") else x


class EncoderDecoder(nn.Module):
    """One embedding for both sides and the output, or one a side."""

    def __init__(self, config, vocabularies, shared):
        super().__init__()
        model = config.model
        self.scale = math.sqrt(model["dim"])
        self.source_embedding = nn.Embedding(vocabularies[0], model["dim"])
        if not shared:
            self.target_embedding = nn.Embedding(vocabularies[1], model["dim"])
        add_positions(self, "source_positions", model)
        add_positions(self, "target_positions", model)
        self.dropout = nn.Dropout(model["dropout"])
        self.encoder = nn.ModuleList(
            Block(config, False, layer) for layer in range(model["layers"])
        )
        self.decoder = nn.ModuleList(
            Block(config, True, layer, cross=True)
            for layer in range(model["decoder_layers"] or model["layers"])
        )
        if model["norm"] == "pre":
            self.encoder_norm = config.make_norm()
            self.decoder_norm = config.make_norm()

    def embed(self, embedding, positions, tokens):
        x = embedding(tokens) * self.scale
        table = getattr(self, positions, None)
        return self.dropout(x if table is None else x + table[: tokens.size(1)])

    def forward(self, source, target, padding):
        masks, none = Masks.of(padding), Masks()
        x = self.embed(self.source_embedding, "source_positions", source)
        for block in self.encoder:
            x = block(x, masks)
        memory = self.encoder_norm(x) if hasattr(self, "encoder_norm") else x
        embedding = getattr(self, "target_embedding", self.source_embedding)
        x = self.embed(embedding, "target_positions", target)
        for block in self.decoder:
            x = block(x, none, memory, masks)
        x = self.decoder_norm(x) if hasattr(self, "decoder_norm") else x
        return F.linear(x, embedding.weight)

"""Encoders, decoder-only stacks and encoder-decoders of any mixer.

B batch, T tokens, S source tokens, C model width.
"""

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from .attention import Attention, CrossAttention, Masks, Setting, Symmetric, TalkingHeads
from .convolutions import DynamicConvolution, LightConvolution
from .hierarchical import HierarchicalAttention

MIXERS = {
    "dot_product": Attention,
    "symmetric": Symmetric,
    "talking_heads": TalkingHeads,
    "light_conv": LightConvolution,
    "dynamic_conv": DynamicConvolution,
    "h_transformer": HierarchicalAttention,
}


class Config(NamedTuple):
    """[model] and [mixer] of a resolved recipe, and the forms that mixers and cross attention take."""

    model: dict
    mixer: dict
    form: str
    cross_form: str

    @classmethod
    def of(cls, recipe, forms):
        return cls(recipe["model"], recipe["mixer"], *forms)

    def setting(self, causal, layer):
        model = self.model
        return Setting(
            model["dim"],
            model["heads"],
            causal,
            model["mixing_dropout"],
            layer,
            self.mixer,
            self.form,
        )


def forms_of(recipe):
    """The (form, cross_form) that a model may have. Where the mixer has the forms of cross attention, both
    take the same."""
    own = MIXERS[recipe["mixer"]["name"]].FORMS
    if recipe["task"]["name"] != "translation":
        return [(form, "") for form in own]
    if own == CrossAttention.FORMS:
        return [(form, form) for form in own]
    return [(form, "composition") for form in own] + [(own[0], "sdpa")]


class Block(nn.Module):
    def __init__(self, config, causal, layer, cross=False):
        super().__init__()
        model = config.model
        dim, eps = model["dim"], model["norm_eps"]
        self.pre_norm = model["norm"] == "pre"
        self.activation = F.gelu if model["activation"] == "gelu" else F.relu
        setting = config.setting(causal, layer)
        self.mixer_norm = nn.LayerNorm(dim, eps)
        self.mixer = MIXERS[config.mixer["name"]](setting)
        if cross:
            self.cross_norm = nn.LayerNorm(dim, eps)
            self.cross = CrossAttention(setting._replace(form=config.cross_form))
        self.ffn_norm = nn.LayerNorm(dim, eps)
        self.ffn_in = nn.Linear(dim, model["ffn"])
        self.ffn_out = nn.Linear(model["ffn"], dim)
        self.dropout = nn.Dropout(model["dropout"])

    def feed_forward(self, x):
        return self.ffn_out(self.activation(self.ffn_in(x)))

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
        self.dropout = nn.Dropout(model["dropout"])
        self.blocks = nn.ModuleList(
            Block(config, causal, layer) for layer in range(model["layers"])
        )
        if model["norm"] == "pre":
            self.final_norm = nn.LayerNorm(model["dim"], model["norm_eps"])

    def forward(self, tokens, masks=None):
        masks = masks or Masks()
        x = self.embedding(tokens)
        if self.scale != 1.0:
            x = x * self.scale
        if hasattr(self, "positions"):
            x = x + self.positions[: tokens.size(1)]
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
            self.encoder_norm = nn.LayerNorm(model["dim"])
            self.decoder_norm = nn.LayerNorm(model["dim"])

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

"""One block of a Transformer around any mechanism."""

import math
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional

from headloom.nn.mixer import make_mixer, projection


@dataclass
class MixerChoice:
    """A mechanism and how it is set up."""

    name: str = "dot_product"
    heads: int = 8  # divides the width
    dropout: float = 0.0  # on the mixing weights
    options: dict = field(default_factory=dict)


class RMSNorm(nn.Module):
    """``x / sqrt(mean(x^2) + eps) * weight`` (Zhang and Sennrich, 2019), in half precision with statistics in
    float32, as headloom/nn/norm.h has it."""

    def __init__(self, dim, eps):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scale = (wide.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        return (wide * scale).to(x.dtype) * self.weight


def make_norm(norm_type, dim, eps):
    """A module of norm.h: "layer" or "rms"."""
    return RMSNorm(dim, eps) if norm_type == "rms" else nn.LayerNorm(dim, eps=eps)


class TransformerBlock(nn.Module):
    """Two terms, or three with a cross mixer, each added to x: the mixer, the cross mixer, the feed-forward
    part. Pre-norm: ``x + dropout(term(norm(x)))``. Post-norm: ``norm(x + dropout(term(x)))``.

    Args:
        dim, ffn: C and the hidden width of the feed-forward part.
        mixer: a :class:`MixerChoice`, or the name of a mechanism.
        cross: one more for a decoder block that looks at a memory.
        norm: "pre" or "post"; norm_type: "layer" or "rms".
        activation: "gelu", "relu" or "gated_gelu", T5 1.1's ``gelu(x Wg) * (x W1)`` by tanh, without biases.
        dropout: after each mixer and each feed-forward part; ``ffn_dropout`` after the activation.
        norm_eps: of the norms.
        layer, layers: place in the model; pre-norm scales what writes to the residual stream by it.

    Parameters ``mixer_norm``, ``mixer``, ``cross_norm``, ``cross``, ``ffn_norm``, ``ffn_in`` [ffn, C],
    ``ffn_gate`` [ffn, C] when gated, and ``ffn_out`` [C, ffn].

    >>> TransformerBlock(16, 32, MixerChoice(heads=4), causal=True)(torch.randn(2, 10, 16)).shape
    torch.Size([2, 10, 16])
    """

    def __init__(
        self,
        dim,
        ffn,
        mixer="dot_product",
        *,
        cross=None,
        causal=False,
        norm="pre",
        norm_type="layer",
        activation="gelu",
        dropout=0.0,
        ffn_dropout=0.0,
        norm_eps=1e-5,
        layer=0,
        layers=1,
    ):
        super().__init__()
        self.pre_norm = norm == "pre"
        self.gelu = activation == "gelu"
        self.dropout = dropout
        self.ffn_dropout = ffn_dropout

        def build(choice, causal):
            choice = MixerChoice(choice) if isinstance(choice, str) else choice
            return make_mixer(
                choice.name,
                dim,
                choice.heads,
                causal,
                dropout=choice.dropout,
                layer=layer,
                layers=layers,
                **choice.options,
            )

        gated = activation == "gated_gelu"
        self.mixer_norm = make_norm(norm_type, dim, norm_eps)
        self.mixer = build(mixer, causal)
        if cross is not None:
            self.cross_norm = make_norm(norm_type, dim, norm_eps)
            self.cross = build(cross, False)
        self.ffn_norm = make_norm(norm_type, dim, norm_eps)
        self.ffn_in = projection(dim, ffn, bias=not gated)
        self.ffn_gate = projection(dim, ffn, bias=False) if gated else None
        self.ffn_out = projection(ffn, dim, bias=not gated)
        if self.pre_norm:
            self._scale_residual_writers(layers)

    @torch.no_grad()
    def _scale_residual_writers(self, layers):
        mixers = [self.mixer] + ([self.cross] if hasattr(self, "cross") else [])
        scale = 1.0 / math.sqrt((1 + len(mixers)) * layers)
        self.ffn_out.weight.mul_(scale)
        for mixer in mixers:
            if hasattr(mixer, "out_proj"):
                mixer.out_proj.weight.mul_(scale)

    def _add(self, x, norm, term):
        if self.pre_norm:
            return x + functional.dropout(term(norm(x)), self.dropout, self.training)
        return norm(x + functional.dropout(term(x), self.dropout, self.training))

    def _feed_forward(self, x):
        hidden = self.ffn_in(x)  # [B, T, ffn]
        if self.ffn_gate is not None:
            hidden = functional.gelu(self.ffn_gate(x), approximate="tanh") * hidden
        else:
            hidden = functional.gelu(hidden) if self.gelu else functional.relu(hidden)
        return self.ffn_out(functional.dropout(hidden, self.ffn_dropout, self.training))

    def forward(
        self, x, key_padding_mask=None, cu_seqlens=None, memory=None, memory_padding_mask=None
    ):
        """x [B, T, C] -> [B, T, C]; memory [B, S, C] for blocks with a cross mixer."""
        x = self._add(x, self.mixer_norm, lambda y: self.mixer(y, key_padding_mask, cu_seqlens))
        if memory is not None:
            x = self._add(
                x, self.cross_norm, lambda y: self.cross.cross(y, memory, memory_padding_mask)
            )
        return self._add(x, self.ffn_norm, self._feed_forward)

    def step(self, x, state, memory_state=None):
        """x [B, n, C] -> [B, n, C]."""
        x = self._add(x, self.mixer_norm, lambda y: self.mixer.step(y, state))
        if memory_state is not None:
            x = self._add(x, self.cross_norm, lambda y: self.cross.cross_step(y, memory_state))
        return self._add(x, self.ffn_norm, self._feed_forward)

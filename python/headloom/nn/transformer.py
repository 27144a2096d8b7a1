"""Transformers of any mechanism, and language models made of them."""

import math
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional

from headloom.nn.block import MixerChoice, TransformerBlock, make_norm
from headloom.nn.mixer import fail, find_mixer
from headloom.nn.tokens import (
    DecoderState,
    check_choice,
    check_length,
    check_positive,
    check_probability,
    check_tokens,
    sinusoidal_table,
)

_WHERE = "transformer"


@dataclass
class TransformerConfig:
    """The fields of a recipe's [model] and [mixer], by the same names."""

    vocabulary: int = 0
    dim: int = 128  # C
    layers: int = 4
    heads: int = 4  # divides dim
    ffn: int = 512
    norm: str = "pre"  # "pre" (with a final norm) or "post"
    positions: str = "learned"  # "learned", "sinusoidal" or "none"
    max_length: int = 1024
    segments: int = 0  # kinds of tokens with a vector each (BERT's token types)
    embedding_norm: bool = False  # a norm between the embedding and the blocks
    norm_eps: float = 1e-5
    norm_type: str = "layer"  # "layer" or "rms", all norms
    activation: str = "gelu"  # "gelu", "relu" or "gated_gelu"
    dropout: float = 0.0  # after embedding, each mixer and each feed-forward part
    mixing_dropout: float = 0.0  # on the mixing weights
    causal: bool = False
    mixer: str = "dot_product"
    mixer_options: dict = field(default_factory=dict)

    def check(self):
        check_positive(_WHERE, self, "vocabulary", "dim", "layers", "heads", "ffn", "max_length")
        if self.dim % self.heads:
            fail(_WHERE, "heads to divide dim", f"dim = {self.dim}, heads = {self.heads}")
        if self.segments < 0:
            fail(_WHERE, "segments of at least 0", f"segments = {self.segments}")
        if not self.norm_eps > 0:
            fail(_WHERE, "norm_eps above 0", f"norm_eps = {self.norm_eps}")
        check_choice(_WHERE, self, "norm", ["pre", "post"])
        check_choice(_WHERE, self, "positions", ["learned", "sinusoidal", "none"])
        check_choice(_WHERE, self, "norm_type", ["layer", "rms"])
        check_choice(_WHERE, self, "activation", ["gelu", "relu", "gated_gelu"])
        check_probability(_WHERE, self, "dropout", "mixing_dropout")
        find_mixer(self.mixer)


class Transformer(nn.Module):
    """Embedding, positions and blocks: an encoder when the configuration is not causal, a decoder-only stack
    when it is.

    Parameters ``embedding.weight`` [V, C], ``positions`` [max_length, C] (learned; a buffer when
    sinusoidal), ``segments`` [segments, C] and ``embedding_norm`` if there are some, ``blocks.<i>`` and,
    pre-norm, ``final_norm``. Initial values as in
    headloom/nn/transformer.h.

    >>> model = Transformer(TransformerConfig(vocabulary=11, dim=16, heads=2, mixer="dynamic_conv"))
    >>> model(torch.randint(11, (2, 10))).shape
    torch.Size([2, 10, 16])
    """

    def __init__(self, config):
        super().__init__()
        config.check()
        self.config = config
        sinusoidal = config.positions == "sinusoidal"
        self.embedding = nn.Embedding(config.vocabulary, config.dim)
        nn.init.normal_(self.embedding.weight, 0.0, config.dim**-0.5 if sinusoidal else 0.02)
        if sinusoidal:
            self.register_buffer("positions", sinusoidal_table(config.max_length, config.dim))
        elif config.positions == "learned":
            self.positions = nn.Parameter(torch.empty(config.max_length, config.dim))
            nn.init.normal_(self.positions, 0.0, 0.02)
        else:
            self.positions = None
        self.segments = None
        if config.segments:
            self.segments = nn.Parameter(torch.empty(config.segments, config.dim))
            nn.init.normal_(self.segments, 0.0, 0.02)
        self.embedding_norm = self._norm() if config.embedding_norm else None
        choice = MixerChoice(
            config.mixer, config.heads, config.mixing_dropout, config.mixer_options
        )
        self.blocks = nn.ModuleList(
            TransformerBlock(
                config.dim,
                config.ffn,
                choice,
                causal=config.causal,
                norm=config.norm,
                norm_type=config.norm_type,
                activation=config.activation,
                dropout=config.dropout,
                norm_eps=config.norm_eps,
                layer=layer,
                layers=config.layers,
            )
            for layer in range(config.layers)
        )
        self.final_norm = self._norm() if config.norm == "pre" else None

    def _norm(self):
        return make_norm(self.config.norm_type, self.config.dim, self.config.norm_eps)

    def _embed(self, tokens, positions, kinds=None):  # positions [T, C], kinds [B, T], or None
        x = self.embedding(tokens)
        if self.config.positions == "sinusoidal":
            x = x * math.sqrt(self.config.dim)
        if positions is not None:
            x = x + positions
        if self.segments is not None:
            x = x + (self.segments[0] if kinds is None else self.segments[kinds])
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        return functional.dropout(x, self.config.dropout, self.training)

    def _finish(self, x):
        return x if self.final_norm is None else self.final_norm(x)

    def _rows(self, begin, count):
        return None if self.positions is None else self.positions[begin : begin + count]

    def _packed_rows(self, tokens, cu_seqlens):
        if tokens.size(0) != 1:
            fail(_WHERE, "B = 1 with cu_seqlens", f"B = {tokens.size(0)}")
        lengths = cu_seqlens.diff()
        longest = int(lengths.max()) if lengths.numel() else 0
        check_length(_WHERE, longest, self.config.max_length, f"{longest} tokens in a sequence")
        if self.positions is None:
            return None
        starts = cu_seqlens[:-1].repeat_interleave(lengths)
        return self.positions[torch.arange(tokens.size(1), device=tokens.device) - starts]

    def forward(self, tokens, key_padding_mask=None, cu_seqlens=None, kinds=None):
        """tokens [B, T] -> [B, T, C]. Positions count columns from 0, padding included; in a packed batch
        (``cu_seqlens``, B = 1) they start again at every boundary. ``kinds`` [B, T] are the segments of the
        tokens, zeros unless given."""
        check_tokens(_WHERE, tokens, self.config.vocabulary)
        if cu_seqlens is None:
            total = tokens.size(1)
            check_length(_WHERE, total, self.config.max_length, f"{total} tokens")
            positions = self._rows(0, total)
        else:
            positions = self._packed_rows(tokens, cu_seqlens)
        x = self._embed(tokens, positions, kinds)
        for block in self.blocks:
            x = block(x, key_padding_mask, cu_seqlens)
        return self._finish(x)

    def new_state(self, batch):
        """Refused unless the configuration is causal."""
        if not self.config.causal:
            fail(
                _WHERE,
                "a causal model to decode with",
                "a bidirectional one",
                "Build it with causal = True.",
            )
        return DecoderState(batch, [block.mixer.new_state(batch) for block in self.blocks])

    def step(self, tokens, state):
        """tokens [B, n] -> [B, n, C] at ``state.position``; without dropout, steps over the pieces of a
        sequence equal forward() on the whole."""
        check_tokens(_WHERE, tokens, self.config.vocabulary)
        state.check(_WHERE, tokens, len(self.blocks), self.config.max_length)
        count = tokens.size(1)
        x = self._embed(tokens, self._rows(state.position, count))
        if count == 0:
            return x
        for block, layer in zip(self.blocks, state.layers, strict=True):
            x = block.step(x, layer)
        state.position += count
        return self._finish(x)


class LanguageModel(nn.Module):
    """A Transformer and its output projection onto the vocabulary: the embedding itself unless told
    otherwise. Parameters ``transformer`` and, untied, ``output.weight`` [V, C].

    >>> model = LanguageModel(TransformerConfig(vocabulary=11, dim=16, heads=2, causal=True))
    >>> model(torch.randint(11, (2, 10))).shape
    torch.Size([2, 10, 11])
    """

    def __init__(self, config, tie_embedding=True):
        super().__init__()
        self.transformer = Transformer(config)
        self.output = None
        if not tie_embedding:
            self.output = nn.Linear(config.dim, config.vocabulary, bias=False)
            nn.init.normal_(self.output.weight, 0.0, 0.02)

    @property
    def config(self):
        return self.transformer.config

    def _project(self, hidden):
        head = self.transformer.embedding if self.output is None else self.output
        return functional.linear(hidden, head.weight)

    def forward(self, tokens, key_padding_mask=None, cu_seqlens=None):
        """tokens [B, T] -> logits [B, T, V]."""
        return self._project(self.transformer(tokens, key_padding_mask, cu_seqlens))

    def new_state(self, batch):
        return self.transformer.new_state(batch)

    def step(self, tokens, state):
        """tokens [B, n] -> logits [B, n, V]."""
        return self._project(self.transformer.step(tokens, state))

    def next_logits(self, tokens, state):
        """A step that projects the last new token alone: [B, n] -> [B, V], n >= 1."""
        if tokens.dim() != 2 or tokens.size(1) < 1:
            fail(
                "language model",
                "tokens of shape [B, n], n at least 1",
                f"shape {list(tokens.shape)}",
            )
        return self._project(self.transformer.step(tokens, state)[:, -1])

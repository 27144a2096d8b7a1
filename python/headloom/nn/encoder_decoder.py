"""The encoder-decoder Transformer of any mechanisms."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

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

_WHERE = "encoder-decoder"


@dataclass
class EncoderDecoderConfig:
    """The fields of headloom/nn/encoder_decoder.h, by the same names. A mixer may be given as a dictionary,
    as :mod:`headloom.compat.fairseq` returns it."""

    source_vocabulary: int = 0
    target_vocabulary: int = 0
    dim: int = 512  # C
    ffn: int = 2048
    encoder_layers: int = 6
    decoder_layers: int = 6
    norm: str = "post"  # "post" or "pre" (with final norms)
    positions: str = "sinusoidal"  # "sinusoidal", "learned" or "none"
    max_length: int = 1024  # longest sequence on either side
    norm_type: str = "layer"  # "layer" or "rms", all norms
    norm_eps: float = 1e-5
    activation: str = "relu"  # "relu", "gelu" or "gated_gelu"
    dropout: float = 0.1  # after embeddings, each mixer and each feed-forward part
    ffn_dropout: float = 0.0  # after the activation
    share_embeddings: bool = False
    tie_output: bool = True  # the output projection is the target's embedding
    encoder_mixer: MixerChoice = field(default_factory=MixerChoice)
    decoder_mixer: MixerChoice = field(default_factory=MixerChoice)
    cross_mixer: MixerChoice = field(default_factory=MixerChoice)

    def __post_init__(self):
        for key in ("encoder_mixer", "decoder_mixer", "cross_mixer"):
            if isinstance(getattr(self, key), dict):
                setattr(self, key, MixerChoice(**getattr(self, key)))

    def check(self):
        check_positive(
            _WHERE, self, "source_vocabulary", "target_vocabulary", "dim", "ffn", "max_length"
        )
        check_positive(_WHERE, self, "encoder_layers", "decoder_layers")
        check_choice(_WHERE, self, "norm", ["post", "pre"])
        check_choice(_WHERE, self, "positions", ["sinusoidal", "learned", "none"])
        check_choice(_WHERE, self, "norm_type", ["layer", "rms"])
        if not self.norm_eps > 0:
            fail(_WHERE, "norm_eps above 0", f"norm_eps = {self.norm_eps}")
        check_choice(_WHERE, self, "activation", ["relu", "gelu", "gated_gelu"])
        check_probability(_WHERE, self, "dropout", "ffn_dropout")
        for key in ("encoder_mixer", "decoder_mixer", "cross_mixer"):
            choice = getattr(self, key)
            if choice.heads <= 0 or self.dim % choice.heads:
                fail(
                    _WHERE,
                    f"{key}.heads to divide dim",
                    f"dim = {self.dim}, {key}.heads = {choice.heads}",
                )
            find_mixer(choice.name)
        if self.share_embeddings and self.source_vocabulary != self.target_vocabulary:
            fail(
                _WHERE,
                "equal vocabularies with share_embeddings",
                f"source_vocabulary = {self.source_vocabulary}, "
                f"target_vocabulary = {self.target_vocabulary}",
            )


class Memory(NamedTuple):
    """What an encoder hands to a decoder: states [B, S, C], padding_mask [B, S] bool or None."""

    states: torch.Tensor
    padding_mask: torch.Tensor | None = None


class EncoderDecoder(nn.Module):
    """The encoder-decoder Transformer (Vaswani et al., 2017, section 3): encoder blocks mix the source in
    both directions, decoder blocks mix the target causally and then look at the encoder's output.

    Inputs are embeddings times sqrt(C) plus positions. Source positions count the tokens that are not
    padding; target positions count columns. Parameters ``source_embedding``, ``target_embedding``,
    ``source_positions``, ``target_positions``, ``encoder.<i>``, ``decoder.<i>``, ``encoder_norm``,
    ``decoder_norm`` and ``output``, as in headloom/nn/encoder_decoder.h.

    >>> config = EncoderDecoderConfig(11, 13, dim=16, ffn=32, encoder_layers=1, decoder_layers=1)
    >>> EncoderDecoder(config)(torch.randint(11, (2, 9)), torch.randint(13, (2, 7))).shape
    torch.Size([2, 7, 13])
    """

    def __init__(self, config):
        super().__init__()
        config.check()
        self.config = config
        self.source_embedding = self._embedding(config.source_vocabulary)
        self.target_embedding = None
        if not config.share_embeddings:
            self.target_embedding = self._embedding(config.target_vocabulary)
        self._make_positions("source_positions")
        self._make_positions("target_positions")
        self.encoder = self._blocks(config.encoder_layers, config.encoder_mixer, None)
        self.decoder = self._blocks(config.decoder_layers, config.decoder_mixer, config.cross_mixer)
        self.encoder_norm = self._final_norm()
        self.decoder_norm = self._final_norm()
        self.output = None
        if not config.tie_output:
            self.output = nn.Linear(config.dim, config.target_vocabulary, bias=False)
            nn.init.normal_(self.output.weight, 0.0, config.dim**-0.5)

    def _final_norm(self):
        config = self.config
        if config.norm != "pre":
            return None
        return make_norm(config.norm_type, config.dim, config.norm_eps)

    def _embedding(self, vocabulary):
        embedding = nn.Embedding(vocabulary, self.config.dim)
        nn.init.normal_(embedding.weight, 0.0, self.config.dim**-0.5)
        return embedding

    def _make_positions(self, name):
        config = self.config
        if config.positions == "sinusoidal":
            self.register_buffer(name, sinusoidal_table(config.max_length, config.dim))
        elif config.positions == "learned":
            table = nn.Parameter(torch.empty(config.max_length, config.dim))
            nn.init.normal_(table, 0.0, config.dim**-0.5)
            self.register_parameter(name, table)
        else:
            setattr(self, name, None)

    def _blocks(self, layers, mixer, cross):
        config = self.config
        return nn.ModuleList(
            TransformerBlock(
                config.dim,
                config.ffn,
                mixer,
                cross=cross,
                causal=cross is not None,
                norm=config.norm,
                norm_type=config.norm_type,
                norm_eps=config.norm_eps,
                activation=config.activation,
                dropout=config.dropout,
                ffn_dropout=config.ffn_dropout,
                layer=layer,
                layers=layers,
            )
            for layer in range(layers)
        )

    @property
    def _target_weight(self):
        return (self.target_embedding or self.source_embedding).weight

    def _embed(self, weight, tokens, positions):
        x = functional.embedding(tokens, weight) * math.sqrt(self.config.dim)
        if positions is not None:
            x = x + positions
        return functional.dropout(x, self.config.dropout, self.training)

    def _project(self, hidden):
        hidden = hidden if self.decoder_norm is None else self.decoder_norm(hidden)
        return functional.linear(
            hidden, self._target_weight if self.output is None else self.output.weight
        )

    def _check(self, tokens, vocabulary):
        check_tokens(_WHERE, tokens, vocabulary)
        check_length(_WHERE, tokens.size(1), self.config.max_length, f"{tokens.size(1)} tokens")

    def encode(self, source, source_padding_mask=None):
        """source [B, S], source_padding_mask [B, S] bool -> :class:`Memory`"""
        self._check(source, self.config.source_vocabulary)
        positions = None
        if self.source_positions is not None and source_padding_mask is None:
            positions = self.source_positions[: source.size(1)]
        elif self.source_positions is not None:
            counts = (source_padding_mask.logical_not().cumsum(1) - 1).clamp_min(0)
            positions = functional.embedding(counts, self.source_positions)
        x = self._embed(self.source_embedding.weight, source, positions)
        for block in self.encoder:
            x = block(x, source_padding_mask)
        return Memory(x if self.encoder_norm is None else self.encoder_norm(x), source_padding_mask)

    def decode(self, target, memory, target_padding_mask=None):
        """target [B, T] -> logits [B, T, V]; those of position t follow from tokens 0 .. t."""
        self._check(target, self.config.target_vocabulary)
        if target.size(0) != memory.states.size(0):
            fail(
                _WHERE,
                f"targets of the {memory.states.size(0)} rows of the memory",
                f"shape {list(target.shape)}",
            )
        positions = None
        if self.target_positions is not None:
            positions = self.target_positions[: target.size(1)]
        x = self._embed(self._target_weight, target, positions)
        for block in self.decoder:
            x = block(x, target_padding_mask, None, memory.states, memory.padding_mask)
        return self._project(x)

    def forward(self, source, target, source_padding_mask=None, target_padding_mask=None):
        memory = self.encode(source, source_padding_mask)
        return self.decode(target, memory, target_padding_mask)

    def new_state(self, memory):
        """What cross mixers need of the memory is made once."""
        batch = memory.states.size(0)
        return DecoderState(
            batch,
            [block.mixer.new_state(batch) for block in self.decoder],
            [block.cross.new_cross_state(*memory) for block in self.decoder],
        )

    def _hidden_step(self, tokens, state):
        check_tokens(_WHERE, tokens, self.config.target_vocabulary)
        state.check(_WHERE, tokens, len(self.decoder), self.config.max_length)
        positions, count = None, tokens.size(1)
        if self.target_positions is not None:
            positions = self.target_positions[state.position : state.position + count]
        x = self._embed(self._target_weight, tokens, positions)
        for block, layer, memory in zip(self.decoder, state.layers, state.memories, strict=True):
            x = block.step(x, layer, memory)
        state.position += count
        return x

    def step(self, tokens, state):
        """tokens [B, n] -> logits [B, n, V]; steps over the pieces of a target equal decode()."""
        return self._project(self._hidden_step(tokens, state))

    def next_logits(self, tokens, state):
        """A step that projects the last new token alone: [B, n] -> [B, V], n >= 1."""
        return self._project(self._hidden_step(tokens, state)[:, -1])

"""Symmetric and pairwise dot-product attention between its projections."""

import torch
from torch import nn

from headloom import ops
from headloom.nn.mixer import TokenMixer, fail, projection, register_mixer
from headloom.nn.states import GrowingState, MemoryState
from headloom.nn.tokens import check_word

_WHERE = "mixer symmetric"


class SymmetricAttention(TokenMixer):
    """Multi-head attention with one projection for queries and keys (Courtois et al., Findings of ACL 2024).

    Args:
        dim, heads: C and H; a head is D = C / H wide.
        causal: no position sees a later one; does not concern :meth:`cross`.
        dropout: on the attention weights, in training.
        form: "pairwise", any coefficients A [H, D, D]; "symmetric", A = I; "constrained", their symmetric
            part; "low_rank", ``diag(s) + U U'^T`` of ``rank``.
        initial: "normal", "identity" or "noise" of deviation ``noise`` around it.
        decay: what weight decay pulls the coefficients to: "zero", "initial" or "none".
        query_heads: projections that the heads share in groups.
        bias: whether the projections have biases.
        cache: accepted for recipes; steps here keep "projections" in any case, with the same results.

    Parameters ``q_proj``, ``v_proj``, ``out_proj`` and, by form, ``pairwise`` [H, D, D], or ``diagonal``
    [H, D], ``left`` and ``right`` [H, D, rank]; with decay "initial" the buffers ``<name>_initial``.

    >>> SymmetricAttention(16, 4)(torch.randn(2, 10, 16)).shape
    torch.Size([2, 10, 16])
    """

    mechanism = "symmetric"

    def __init__(
        self,
        dim,
        heads,
        *,
        causal=False,
        dropout=0.0,
        form="pairwise",
        rank=8,
        initial="normal",
        noise=0.02,
        decay=None,
        query_heads=None,
        bias=True,
        cache="projections",
    ):
        super().__init__()
        forms = ("symmetric", "pairwise", "constrained", "low_rank")
        self.form = check_word(_WHERE, "form", form, forms)
        check_word(_WHERE, "initial", initial, ("normal", "identity", "noise"))
        check_word(_WHERE, "cache", cache, ("projections", "inputs"))
        decay = ("zero" if initial == "normal" else "initial") if decay is None else decay
        self.decay = check_word(_WHERE, "decay", decay, ("zero", "initial", "none"))
        self.query_heads = heads if query_heads is None else query_heads
        if self.query_heads < 1 or heads % self.query_heads:
            fail(_WHERE, f"query_heads that divides {heads}", f"{query_heads}")
        self.heads, self.width = heads, dim // heads
        self.causal, self.dropout = causal, dropout
        self.q_proj = projection(dim, self.query_heads * self.width, bias)
        self.v_proj = projection(dim, dim, bias)
        self.out_proj = projection(dim, dim, bias)
        self._shapes = {}
        self._add_coefficients(initial, noise, rank)

    def _add_coefficients(self, initial, noise, rank):
        heads, width = self.heads, self.width
        deviation = {"normal": 1.0, "noise": noise, "identity": 0.0}[initial]
        if self.form in ("pairwise", "constrained"):
            start = torch.randn(heads, width, width) * deviation
            self._add("pairwise", start if initial == "normal" else start + torch.eye(width))
        elif self.form == "low_rank":
            # rank (deviation / sqrt(rank))^2 is the variance of an element of U U'^T.
            factor = rank**-0.25 * (deviation**0.5 if deviation > 0.0 else 1.0)
            diagonal = torch.full((heads, width), 0.0 if initial == "normal" else 1.0)
            self._add("diagonal", diagonal)
            self._add("left", torch.randn(heads, width, rank) * factor)
            self._add("right", torch.randn(heads, width, rank) * (factor if deviation else 0.0))

    def _add(self, name, start):
        self._shapes[name] = start.shape
        if self.decay == "initial":
            self.register_buffer(f"{name}_initial", start)
            start = torch.zeros_like(start)
        elif self.decay == "none":
            start = start.flatten()
        self.register_parameter(name, nn.Parameter(start))

    def _value(self, name):
        value = getattr(self, name).view(self._shapes[name])
        return value + getattr(self, f"{name}_initial") if self.decay == "initial" else value

    def _raw(self):
        if self.form == "symmetric":
            return None
        if self.form != "low_rank":
            return self._value("pairwise")
        return (
            torch.diag_embed(self._value("diagonal"))
            + self._value("left") @ self._value("right").mT
        )

    def coefficients(self):
        """A [H, D, D] as it acts, or None in the form "symmetric"."""
        raw = self._raw()
        return (raw + raw.mT) / 2 if self.form == "constrained" else raw

    def _queries(self, x):  # [B, T, C] -> [B, Hq, T, D]
        return self.q_proj(x).unflatten(-1, (self.query_heads, -1)).transpose(1, 2)

    def _values(self, x):  # [B, T, C] -> [B, H, T, D]
        return self.v_proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _attend(self, queries, values, **options):
        mixed = ops.symmetric_attention(
            queries,
            values,
            self._raw(),
            dropout_p=self.dropout if self.training else 0.0,
            symmetrize=self.form == "constrained",
            **options,
        )
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def forward(self, x, key_padding_mask=None, cu_seqlens=None):
        return self._attend(
            self._queries(x),
            self._values(x),
            causal=self.causal,
            key_padding_mask=key_padding_mask,
            cu_seqlens=cu_seqlens,
        )

    def cross(self, x, memory, memory_padding_mask=None):
        return self.cross_step(x, self.new_cross_state(memory, memory_padding_mask))

    def new_cross_state(self, memory, memory_padding_mask=None):
        return MemoryState(
            memory.size(1),
            memory_padding_mask,
            keys=self._queries(memory),
            values=self._values(memory),
        )

    def cross_step(self, x, state):
        self.check_state(state, MemoryState)
        return self._attend(
            self._queries(x), state.values, k=state.keys, key_padding_mask=state.padding_mask
        )

    def new_state(self, batch):
        self.check_causal()
        return GrowingState(keys=2, values=2)

    def step(self, x, state):
        self.check_state(state, GrowingState)
        queries = self._queries(x)
        state.append(keys=queries, values=self._values(x))
        return self._attend(queries, state.values, k=state.keys, causal=x.size(1) > 1)


@register_mixer("symmetric")
def _make(
    config,
    *,
    form="pairwise",
    rank=8,
    initial="normal",
    noise=0.02,
    decay=None,
    query_heads=None,
    bias=True,
    cache="projections",
):
    options = {name: value for name, value in locals().items() if name != "config"}
    return SymmetricAttention(
        config.dim, config.heads, causal=config.causal, dropout=config.dropout, **options
    )

"""Hierarchical attention between its projections."""

import math

import torch
from torch import nn

from headloom import ops
from headloom.nn.mixer import TokenMixer, fail, register_mixer
from headloom.nn.states import GrowingState
from headloom.nn.tokens import check_word

_WHERE = "mixer h_transformer"
# Of a normal number of deviation 1 that is cut at two.
_DEVIATION_WHEN_CUT = 0.87962566103423978


class HierarchicalAttention(TokenMixer):
    """Multi-head hierarchical attention (Zhu and Soricut, ACL 2021; :func:`headloom.ops.h_attention`).

    Args:
        dim, heads: C and H.
        causal: no position sees a later one.
        dropout: on the weights of pairs of groups, in training.
        block_size: R, even, 2 to 256.
        query_mode, center_keys: as for the operator; where causal, ``center_keys`` means that k_proj has no
            bias.
        relative_bias: a learned bias for each distance in groups, shared by the levels.
        bias: whether the projections have biases.
        init: "paper" as the authors' code, or "xavier" as plain attention.

    Parameters ``q_proj``, ``k_proj``, ``v_proj``, ``out_proj`` and ``relative_bias`` [H, 4R - 1].

    Steps keep queries, keys and values of all tokens and go through the whole sequence again: the cache of
    2R log2(T / R) rows is C++'s (headloom/mechanisms/h_transformer/h_transformer_decoding.h).

    >>> HierarchicalAttention(16, 4, causal=True)(torch.randn(2, 100, 16)).shape
    torch.Size([2, 100, 16])
    """

    mechanism = "h_transformer"

    def __init__(
        self,
        dim,
        heads,
        *,
        causal=False,
        dropout=0.0,
        block_size=16,
        query_mode="coarse",
        center_keys=False,
        relative_bias=True,
        bias=False,
        init="paper",
    ):
        super().__init__()
        if block_size % 2 or not 2 <= block_size <= 256:
            fail(_WHERE, "an even block_size of 2 to 256", f"{block_size}")
        self.query_mode = check_word(_WHERE, "query_mode", query_mode, ("coarse", "fine"))
        paper = check_word(_WHERE, "init", init, ("paper", "xavier")) == "paper"
        self.heads, self.causal, self.dropout = heads, causal, dropout
        self.block_size = block_size
        self.center_keys = center_keys
        self.q_proj = self._projection(dim, bias, paper)
        self.k_proj = self._projection(dim, bias and not (center_keys and causal), paper)
        self.v_proj = self._projection(dim, bias, paper)
        self.out_proj = self._projection(dim, bias, paper)
        table = nn.Parameter(torch.zeros(heads, 4 * block_size - 1)) if relative_bias else None
        self.register_parameter("relative_bias", table)
        if relative_bias and paper:
            nn.init.normal_(self.relative_bias, 0.0, 0.1)

    @torch.no_grad()
    def _projection(self, dim, bias, paper):
        linear = nn.Linear(dim, dim, bias=bias)
        if paper:
            limit = math.erf(2.0 / math.sqrt(2.0))
            scale = math.sqrt(2.0) * dim**-0.5 / _DEVIATION_WHEN_CUT
            linear.weight.uniform_(-limit, limit).erfinv_().mul_(scale)
        else:
            nn.init.xavier_uniform_(linear.weight)
        if bias:
            nn.init.zeros_(linear.bias)
        return linear

    def _split(self, x):  # [B, T, C] -> [B, H, T, D]
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _attend(self, q, k, v, **options):
        mixed = ops.h_attention(
            q,
            k,
            v,
            block_size=self.block_size,
            bias=self.relative_bias,
            dropout_p=self.dropout if self.training else 0.0,
            query_mode=self.query_mode,
            **options,
        )
        return mixed.transpose(1, 2).flatten(2)

    def _project(self, x):
        return (self._split(linear(x)) for linear in (self.q_proj, self.k_proj, self.v_proj))

    def forward(self, x, key_padding_mask=None, cu_seqlens=None):
        mixed = self._attend(
            *self._project(x),
            causal=self.causal,
            center_keys=self.center_keys and not self.causal,
            key_padding_mask=key_padding_mask,
            cu_seqlens=cu_seqlens,
        )
        return self.out_proj(mixed)

    def cross(self, x, memory, memory_padding_mask=None):
        """For a memory as long as x: the levels of both are laid on one another."""
        if x.size(1) != memory.size(1):
            fail(
                _WHERE,
                f"a memory of {x.size(1)} tokens",
                f"{memory.size(1)}",
                "Levels need equal lengths; use dot_product for cross attention of others.",
            )
        options = {"center_keys": self.center_keys}
        if memory_padding_mask is not None:
            options["key_padding_mask"] = memory_padding_mask
            options["query_padding_mask"] = torch.zeros_like(memory_padding_mask)
        q, k, v = (
            self._split(linear(given))
            for linear, given in ((self.q_proj, x), (self.k_proj, memory), (self.v_proj, memory))
        )
        return self.out_proj(self._attend(q, k, v, **options))

    def new_state(self, batch):
        self.check_causal()
        return GrowingState(queries=2, keys=2, values=2)

    def step(self, x, state):
        self.check_state(state, GrowingState)
        queries, keys, values = self._project(x)
        state.append(queries=queries, keys=keys, values=values)
        mixed = self._attend(state.queries, state.keys, state.values, causal=True)
        return self.out_proj(mixed[:, -x.size(1) :])


@register_mixer("h_transformer")
def _make(
    config,
    *,
    block_size=16,
    query_mode="coarse",
    center_keys=False,
    relative_bias=True,
    bias=False,
    init="paper",
):
    options = {name: value for name, value in locals().items() if name != "config"}
    return HierarchicalAttention(
        config.dim, config.heads, causal=config.causal, dropout=config.dropout, **options
    )

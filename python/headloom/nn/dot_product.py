"""Multi-head scaled dot-product attention."""

import math

from headloom import ops
from headloom.nn.mixer import TokenMixer, projection, register_mixer
from headloom.nn.states import GrowingState, MemoryState


class MultiheadAttention(TokenMixer):
    """Multi-head attention (Vaswani et al., 2017, section 3.2.2), self (causal or not) and cross.

    Args:
        dim: width of the model, C.
        heads: H, divides ``dim``.
        causal: no position sees a later one; does not concern :meth:`cross`.
        bias: whether the projections have biases.
        dropout: on the attention weights, in training.
        logit_scale: a factor on the logits, beside ``1 / sqrt(width / heads)``.
        width: of all heads together, a multiple of ``heads``; ``dim`` unless given.

    Parameters ``q_proj``, ``k_proj``, ``v_proj``, each [width, dim], and ``out_proj`` [dim, width].

    >>> MultiheadAttention(16, 4, causal=True)(torch.randn(2, 10, 16)).shape
    torch.Size([2, 10, 16])
    """

    mechanism = "dot_product"

    def __init__(
        self, dim, heads, *, causal=False, bias=True, dropout=0.0, logit_scale=1.0, width=None
    ):
        super().__init__()
        width = dim if width is None else width
        if heads <= 0 or width <= 0 or width % heads:
            raise ValueError(
                f"MultiheadAttention: expected a width that is a multiple of the heads; found width "
                f"{width}, heads {heads}."
            )
        if not 0 < logit_scale < math.inf:
            raise ValueError(
                f"MultiheadAttention: expected a finite logit_scale above 0; found {logit_scale}."
            )
        self.scale = logit_scale / math.sqrt(width // heads)
        self.heads = heads
        self.causal = causal
        self.dropout = dropout
        self.q_proj = projection(dim, width, bias)
        self.k_proj = projection(dim, width, bias)
        self.v_proj = projection(dim, width, bias)
        self.out_proj = projection(width, dim, bias)

    def _split(self, x):  # [B, T, C] -> [B, H, T, D]
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _attend(self, x, keys, values, **options):
        dropout = self.dropout if self.training else 0.0
        mixed = ops.dot_product_attention(
            self._split(self.q_proj(x)),
            keys,
            values,
            dropout_p=dropout,
            scale=self.scale,
            **options,
        )
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def forward(self, x, key_padding_mask=None, cu_seqlens=None):
        return self._attend(
            x,
            self._split(self.k_proj(x)),
            self._split(self.v_proj(x)),
            causal=self.causal,
            key_padding_mask=key_padding_mask,
            cu_seqlens_q=cu_seqlens,
            cu_seqlens_k=cu_seqlens,
        )

    def cross(self, x, memory, memory_padding_mask=None):
        return self.cross_step(x, self.new_cross_state(memory, memory_padding_mask))

    def new_cross_state(self, memory, memory_padding_mask=None):
        return MemoryState(
            memory.size(1),
            memory_padding_mask,
            keys=self._split(self.k_proj(memory)),
            values=self._split(self.v_proj(memory)),
        )

    def cross_step(self, x, state):
        self.check_state(state, MemoryState)
        return self._attend(x, state.keys, state.values, key_padding_mask=state.padding_mask)

    def new_state(self, batch):
        self.check_causal()
        return GrowingState(keys=2, values=2)

    def step(self, x, state):
        self.check_state(state, GrowingState)
        state.append(keys=self._split(self.k_proj(x)), values=self._split(self.v_proj(x)))
        return self._attend(x, state.keys, state.values, causal=x.size(1) > 1)


@register_mixer("dot_product")
def _make(config, *, bias=True, logit_scale=1.0, width=None):
    return MultiheadAttention(
        config.dim,
        config.heads,
        causal=config.causal,
        bias=bias,
        dropout=config.dropout,
        logit_scale=logit_scale,
        width=width,
    )

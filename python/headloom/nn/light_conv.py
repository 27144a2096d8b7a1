"""Lightweight and dynamic convolutions between their projections."""

import torch
from torch import nn
from torch.nn import functional

from headloom import ops


def _projection(inputs, outputs, bias=True):
    linear = nn.Linear(inputs, outputs, bias=bias)
    nn.init.xavier_uniform_(linear.weight)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear


class _Conv(nn.Module):
    def __init__(
        self,
        dim,
        heads,
        kernel_size,
        *,
        causal=False,
        conv_dim=None,
        glu=True,
        weight_softmax=True,
        conv_bias=False,
        weight_dropout=0.0,
        input_dropout=0.0,
    ):
        super().__init__()
        self.heads = heads
        self.kernel_size = kernel_size
        self.channels = dim if conv_dim is None else conv_dim
        if self.channels % heads:
            raise ValueError(
                f"{type(self).__name__}: expected a width of the convolution that is a multiple of the "
                f"heads; found width {self.channels}, heads {heads}."
            )
        self.causal = causal
        self.glu = glu
        self.weight_softmax = weight_softmax
        self.weight_dropout = weight_dropout
        self.input_dropout = input_dropout
        self.in_proj = _projection(dim, 2 * self.channels if glu else self.channels)
        self.conv_bias = nn.Parameter(torch.zeros(self.channels)) if conv_bias else None
        self.out_proj = _projection(self.channels, dim)

    def _convolve(self, values, options):
        raise NotImplementedError

    def forward(self, x, key_padding_mask=None, cu_seqlens=None):
        """x [B, T, dim] -> [B, T, dim]; the masks are those of the operators."""
        x = functional.dropout(x, self.input_dropout, self.training)
        values = self.in_proj(x)
        if self.glu:
            values = functional.glu(values, -1)
        options = {
            "padding": "causal" if self.causal else "same",
            "weight_softmax": self.weight_softmax,
            "conv_bias": self.conv_bias,
            "key_padding_mask": key_padding_mask,
            "cu_seqlens": cu_seqlens,
            "weight_dropout": self.weight_dropout if self.training else 0.0,
        }
        return self.out_proj(self._convolve(values, options))


class LightConv(_Conv):
    """A lightweight convolution as a layer mixes with it (Wu et al., ICLR 2019, section 3.2): dropout,
    a projection with a gated linear unit, zeros at padding, the convolution, a projection.

    Args:
        dim: width of the model.
        heads: kernels; divides ``conv_dim``.
        kernel_size: K, 1 to 1023.
        causal: no position sees a later one; otherwise the kernel is centred.
        conv_dim: channels of the convolution, default ``dim``.
        glu: the gate; ``in_proj`` is then [2 conv_dim, dim], value first, gate second.
        weight_softmax, conv_bias: as for :func:`headloom.ops.light_conv`.
        weight_dropout, dropconnect: DropConnect in training.
        input_dropout: dropout on the input in training.

    Parameters ``in_proj``, ``weight`` [heads, kernel_size], ``out_proj`` and ``conv_bias`` if asked for.

    >>> LightConv(16, 4, 7)(torch.randn(2, 10, 16)).shape
    torch.Size([2, 10, 16])
    """

    def __init__(self, dim, heads, kernel_size, *, dropconnect="shared", **options):
        super().__init__(dim, heads, kernel_size, **options)
        self.dropconnect = dropconnect
        self.weight = nn.Parameter(torch.empty(heads, kernel_size))
        nn.init.xavier_uniform_(self.weight)

    def _convolve(self, values, options):
        return ops.light_conv(values, self.weight, dropconnect=self.dropconnect, **options)


class DynamicConv(_Conv):
    """A dynamic convolution as a layer mixes with it (section 4): as :class:`LightConv`, with the
    kernel of a position predicted from the input of the convolution there.

    Args beyond those of :class:`LightConv`, without ``dropconnect``:
        renorm_padding: softmax over the taps inside the sequence only.
        kernel_bias: whether the prediction of kernels has a bias.

    Parameters ``in_proj``, ``kernel_proj`` [heads kernel_size, conv_dim], ``out_proj`` and ``conv_bias``
    if asked for.

    >>> DynamicConv(16, 4, 7, causal=True)(torch.randn(2, 10, 16)).shape
    torch.Size([2, 10, 16])
    """

    def __init__(
        self, dim, heads, kernel_size, *, renorm_padding=False, kernel_bias=False, **options
    ):
        super().__init__(dim, heads, kernel_size, **options)
        self.renorm_padding = renorm_padding
        self.kernel_proj = _projection(self.channels, heads * kernel_size, bias=kernel_bias)

    def _convolve(self, values, options):
        mask = options["key_padding_mask"]
        if mask is not None:
            # kernel_proj must not see padding either: 0 times a stray NaN would reach its gradient.
            values = values.masked_fill(mask.unsqueeze(-1), 0.0)
        logits = self.kernel_proj(values).unflatten(-1, (self.heads, self.kernel_size))
        return ops.dynamic_conv(values, logits, renorm_padding=self.renorm_padding, **options)

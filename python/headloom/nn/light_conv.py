"""Lightweight and dynamic convolutions between their projections."""

import torch
from torch import nn
from torch.nn import functional

from headloom import ops
from headloom.nn.mixer import TokenMixer, fail, projection, register_mixer
from headloom.nn.states import all_bytes, reorder_rows


class ConvState:
    """What a causal convolution remembers between decoding steps: its newest K - 1 inputs, in a ring
    [B, K - 1, C] with token t in row t mod (K - 1)."""

    def __init__(self, batch, kernel_size, like):
        self.ring = like.new_zeros(batch, kernel_size - 1, like.size(0), requires_grad=False)
        self.length = 0

    def in_order(self):
        """[B, K - 1, C], the oldest first."""
        rows = self.ring.size(1)
        return self.ring.roll(-(self.length % rows), 1) if rows else self.ring

    def remember(self, values):
        """Puts values [B, n, C] in the places of the oldest."""
        rows, tokens = self.ring.size(1), values.size(1)
        if rows:
            newest = range(max(0, tokens - rows), tokens)
            places = torch.tensor([(self.length + t) % rows for t in newest], device=values.device)
            self.ring[:, places] = values[:, newest.start :].detach().to(self.ring.dtype)
        self.length += tokens

    def reorder(self, index):
        self.ring = reorder_rows(self.ring, index)

    def bytes(self):
        return all_bytes(self.ring)


class _Conv(TokenMixer):
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
        self.in_proj = projection(dim, 2 * self.channels if glu else self.channels)
        self.conv_bias = nn.Parameter(torch.zeros(self.channels)) if conv_bias else None
        self.out_proj = projection(self.channels, dim)

    def _values(self, x):  # [B, T, dim] -> [B, T, C], the input of the convolution
        values = self.in_proj(functional.dropout(x, self.input_dropout, self.training))
        return functional.glu(values, -1) if self.glu else values

    def _convolve(self, values, options):
        raise NotImplementedError

    def _convolve_window(self, window, values, options, absent):
        raise NotImplementedError

    def forward(self, x, key_padding_mask=None, cu_seqlens=None):
        values = self._values(x)
        options = {
            "padding": "causal" if self.causal else "same",
            "weight_softmax": self.weight_softmax,
            "conv_bias": self.conv_bias,
            "key_padding_mask": key_padding_mask,
            "cu_seqlens": cu_seqlens,
            "weight_dropout": self.weight_dropout if self.training else 0.0,
        }
        return self.out_proj(self._convolve(values, options))

    def new_state(self, batch):
        self.check_causal()
        return ConvState(batch, self.kernel_size, self.out_proj.weight.detach()[0])

    def step(self, x, state):
        self.check_state(state, ConvState)
        where = f"mixer {self.mechanism}"
        if x.size(0) != state.ring.size(0):
            fail(where, f"a batch of {state.ring.size(0)}", f"a batch of {x.size(0)}")
        values = self._values(x)
        window = torch.cat([state.in_order().to(values.dtype), values], 1)  # [B, K - 1 + n, C]
        options = {
            "padding": "causal",
            "weight_softmax": self.weight_softmax,
            "conv_bias": self.conv_bias,
        }
        # Rows of the window that stand for tokens before the first.
        absent = max(0, self.kernel_size - 1 - state.length)
        mixed = self._convolve_window(window, values, options, absent)[:, -values.size(1) :]
        state.remember(values)
        return self.out_proj(mixed)


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

    mechanism = "light_conv"

    def __init__(self, dim, heads, kernel_size, *, dropconnect="shared", **options):
        super().__init__(dim, heads, kernel_size, **options)
        self.dropconnect = dropconnect
        self.weight = nn.Parameter(torch.empty(heads, kernel_size))
        nn.init.xavier_uniform_(self.weight)

    def _convolve(self, values, options):
        return ops.light_conv(values, self.weight, dropconnect=self.dropconnect, **options)

    def _convolve_window(self, window, values, options, absent):
        return ops.light_conv(window, self.weight, **options)


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

    mechanism = "dynamic_conv"

    def __init__(
        self, dim, heads, kernel_size, *, renorm_padding=False, kernel_bias=False, **options
    ):
        super().__init__(dim, heads, kernel_size, **options)
        self.renorm_padding = renorm_padding
        self.kernel_proj = projection(self.channels, heads * kernel_size, bias=kernel_bias)

    def _convolve(self, values, options):
        mask = options["key_padding_mask"]
        if mask is not None:
            # kernel_proj must not see padding either: 0 times a stray NaN would reach its gradient.
            values = values.masked_fill(mask.unsqueeze(-1), 0.0)
        logits = self._logits(values)
        return ops.dynamic_conv(values, logits, renorm_padding=self.renorm_padding, **options)

    def _logits(self, values):  # [B, T, C] -> [B, T, H, K]
        return self.kernel_proj(values).unflatten(-1, (self.heads, self.kernel_size))

    def _convolve_window(self, window, values, options, absent):
        if self.renorm_padding and absent:
            mask = torch.arange(window.size(1), device=window.device) < absent
            options["key_padding_mask"] = mask.expand(window.size(0), -1)
        rows = window.size(1) - values.size(1)
        logits = functional.pad(self._logits(values), (0, 0, 0, 0, rows, 0))
        return ops.dynamic_conv(window, logits, renorm_padding=self.renorm_padding, **options)


def _conv_options(config, kernel_sizes, weight_dropout, **options):
    sizes = [kernel_sizes] if isinstance(kernel_sizes, int) else list(kernel_sizes)
    if not sizes:
        fail("mixer", "kernel_sizes of at least one layer", "an empty list")
    options["kernel_size"] = sizes[min(config.layer, len(sizes) - 1)]
    options["weight_dropout"] = config.dropout if weight_dropout is None else weight_dropout
    return {"dim": config.dim, "heads": config.heads, "causal": config.causal, **options}


_KERNEL_SIZES = (3, 7, 15, 31, 31, 31, 31)


@register_mixer("light_conv")
def _make_light(
    config,
    *,
    kernel_sizes=_KERNEL_SIZES,
    conv_dim=None,
    glu=True,
    weight_softmax=True,
    conv_bias=False,
    weight_dropout=None,
    input_dropout=0.0,
    dropconnect="shared",
):
    options = _conv_options(
        config,
        kernel_sizes,
        weight_dropout,
        conv_dim=conv_dim,
        glu=glu,
        weight_softmax=weight_softmax,
        conv_bias=conv_bias,
        input_dropout=input_dropout,
    )
    return LightConv(dropconnect=dropconnect, **options)


@register_mixer("dynamic_conv")
def _make_dynamic(
    config,
    *,
    kernel_sizes=_KERNEL_SIZES,
    conv_dim=None,
    glu=True,
    weight_softmax=True,
    conv_bias=False,
    weight_dropout=None,
    input_dropout=0.0,
    renorm_padding=False,
    kernel_bias=False,
):
    options = _conv_options(
        config,
        kernel_sizes,
        weight_dropout,
        conv_dim=conv_dim,
        glu=glu,
        weight_softmax=weight_softmax,
        conv_bias=conv_bias,
        input_dropout=input_dropout,
    )
    return DynamicConv(renorm_padding=renorm_padding, kernel_bias=kernel_bias, **options)

"""Lightweight and dynamic convolutions."""

import torch

from headloom.ops._seed import seed_for


def _left_padding(padding, width):
    """The count of taps left of a position: "same" centres the kernel, "causal" ends it there."""
    if padding == "same":
        return width // 2
    if padding == "causal":
        return width - 1
    if isinstance(padding, str):
        raise ValueError(f'expected padding "same", "causal" or a count; found "{padding}".')
    return padding


def light_conv(
    x,
    weight,
    *,
    padding="same",
    weight_softmax=True,
    conv_bias=None,
    key_padding_mask=None,
    cu_seqlens=None,
    weight_dropout=0.0,
    dropconnect="shared",
    seed=None,
):
    """Lightweight convolution (Wu et al., ICLR 2019): a depthwise convolution whose kernel is softmaxed
    over its taps and shared by the channels of a head.

    Args:
        x: [B, T, C].
        weight: [H, K]; channel c uses row c // (C / H); H divides C, 1 <= K <= 1023.
        padding: "same" (K // 2 taps before a position), "causal" (K - 1) or that count.
        weight_softmax: softmax over all K taps, also where some fall outside the sequence.
        conv_bias: [C], added to the output.
        key_padding_mask: [B, T] bool, true where a position is padding: it counts as zero.
        cu_seqlens: [S + 1] boundaries of S packed sequences; no tap crosses one; B = 1.
        weight_dropout: DropConnect on the softmaxed weights, 0 <= p < 1.
        dropconnect: "shared", one mask [H, K] for all positions, or "per_position", [B, T, H, K].
        seed: 0-dim int64 tensor that fixes the mask.

    Returns:
        [B, T, C]; ``y[b, t, c] = sum_k softmax(weight)[c // (C / H), k] * x[b, t + k - padding, c]``.

    Equals a grouped ``conv1d`` with ``weight.softmax(-1).repeat_interleave(C // H, 0)[:, None]``.

    >>> light_conv(torch.randn(2, 10, 8), torch.randn(4, 3)).shape
    torch.Size([2, 10, 8])
    """
    return torch.ops.headloom.light_conv(
        x,
        weight,
        padding=_left_padding(padding, weight.size(-1)),
        weight_softmax=weight_softmax,
        conv_bias=conv_bias,
        key_padding_mask=key_padding_mask,
        cu_seqlens=cu_seqlens,
        weight_dropout=weight_dropout,
        dropconnect=dropconnect,
        seed=seed_for(seed, weight_dropout),
    )


def dynamic_conv(
    x,
    kernel_logits,
    *,
    padding="same",
    weight_softmax=True,
    renorm_padding=False,
    conv_bias=None,
    key_padding_mask=None,
    cu_seqlens=None,
    weight_dropout=0.0,
    seed=None,
):
    """Dynamic convolution (Wu et al., ICLR 2019): a lightweight convolution whose kernels are predicted
    at each position.

    Args:
        x: [B, T, C].
        kernel_logits: [B, T, H, K]; channel c of position t uses row c // (C / H).
        padding: "same" (K // 2 taps before a position), "causal" (K - 1) or that count.
        weight_softmax: softmax over all K taps.
        renorm_padding: softmax over the taps inside the sequence only.
        conv_bias: [C], added to the output.
        key_padding_mask: [B, T] bool, true where a position is padding: it counts as zero.
        cu_seqlens: [S + 1] boundaries of S packed sequences; no tap crosses one; B = 1.
        weight_dropout: DropConnect on the softmaxed weights, mask [B, T, H, K], 0 <= p < 1.
        seed: 0-dim int64 tensor that fixes the mask.

    Returns:
        [B, T, C]

    >>> dynamic_conv(torch.randn(2, 10, 8), torch.randn(2, 10, 4, 3), padding="causal").shape
    torch.Size([2, 10, 8])
    """
    return torch.ops.headloom.dynamic_conv(
        x,
        kernel_logits,
        padding=_left_padding(padding, kernel_logits.size(-1)),
        weight_softmax=weight_softmax,
        renorm_padding=renorm_padding,
        conv_bias=conv_bias,
        key_padding_mask=key_padding_mask,
        cu_seqlens=cu_seqlens,
        weight_dropout=weight_dropout,
        seed=seed_for(seed, weight_dropout),
    )

"""The layer that takes the place of self-attention, projections included, beside an attention layer of
the same width: a rival, because it computes something else."""

import torch
from torch.nn.functional import glu, linear, scaled_dot_product_attention

import headloom
from cases.convolution import DTYPES, first_row, shifted
from harness import Case

HEADS, WIDTH = 8, 31


def layer(convolve):
    """x [B, T, C], in_proj [2C, C], kernel_proj [H K, C], out_proj [C, C]"""

    def mix(x, in_proj, kernel_proj, out_proj):
        values = glu(linear(x, in_proj))
        logits = linear(values, kernel_proj).unflatten(-1, (HEADS, WIDTH))
        return linear(convolve(values, logits), out_proj)

    return mix


def attention(x, in_proj, out_proj):
    """in_proj [3C, C], out_proj [C, C]"""
    q, k, v = linear(x, in_proj).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
    mixed = scaled_dot_product_attention(q, k, v, is_causal=True)
    return linear(mixed.transpose(1, 2).flatten(2), out_proj)


def inputs(batch, length, channels, *rows):
    x = torch.randn(batch, length, channels)
    return [x, *(torch.randn(row, channels) * channels**-0.5 for row in rows)]


def causal(x, logits):
    return headloom.ops.dynamic_conv(x, logits, padding="causal")


def case(batch, channels, length):
    return Case(
        mechanism="dynamic_conv_block",
        name=f"B{batch} C{channels} H{HEADS} T{length} K{WIDTH}",
        inputs=lambda: inputs(batch, length, channels, 2 * channels, HEADS * WIDTH, channels),
        headloom=layer(causal),
        peers={"shifted": layer(lambda x, logits: shifted(x, logits.softmax(-1), WIDTH - 1))},
        rivals={
            "sdpa layer": (
                attention,
                lambda: inputs(batch, length, channels, 3 * channels, channels),
            )
        },
        part=first_row,
        forward_flops=2 * batch * length * channels * (3 * channels + (HEADS + 1) * WIDTH),
        dtypes=DTYPES,
        quick=length == 256 and batch == 1,
    )


def cases():
    return [case(1, 512, 256)] + [case(8, 512, length) for length in (256, 512, 1024, 2048)]

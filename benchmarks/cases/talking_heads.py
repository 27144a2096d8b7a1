"""Talking-heads attention beside the compositions that people write, and beside attention that does
not mix: the plain composition and torch's own."""

import math

import torch
from torch.nn.functional import conv2d, scaled_dot_product_attention

import headloom
from cases.lengths import LENGTHS
from harness import Case


def logits_of(q, k):
    return (q * (1 / math.sqrt(q.size(-1)))) @ k.mT


def einsum(q, k, v, mix_logits, mix_weights):
    logits = torch.einsum("bkij,kh->bhij", logits_of(q, k), mix_logits)
    weights = torch.einsum("bhij,hv->bvij", logits.softmax(-1), mix_weights)
    return torch.einsum("bvij,bvjd->bvid", weights, v)


def matmul(q, k, v, mix_logits, mix_weights):
    def mix(x, projection):
        return (projection.mT @ x.flatten(2)).unflatten(2, x.shape[2:])

    return mix(mix(logits_of(q, k), mix_logits).softmax(-1), mix_weights) @ v


def convolution(q, k, v, mix_logits, mix_weights):
    def mix(x, projection):
        return conv2d(x, projection.mT[:, :, None, None])

    return mix(mix(logits_of(q, k), mix_logits).softmax(-1), mix_weights) @ v


# Attention whose heads do not talk does less. The mixes take part, so that all have gradients.
def unmixed(attend):
    return lambda q, k, v, *mixes: attend(q, k, v) + 0.0 * sum(mix.sum() for mix in mixes)


def composition(q, k, v):
    return logits_of(q, k).softmax(-1) @ v


def beginning(tensors):
    """The first tokens of one sequence: float64 peers are slow."""
    return [*(t[:1, :, :512] for t in tensors[:3]), *tensors[3:]]


BOTH = ("forward", "forward_backward")


def case(batch, heads, length, width, quick=False, passes=BOTH):
    def inputs():
        tokens = [torch.randn(batch, heads, length, width) for _ in range(3)]
        return [*tokens, *(torch.eye(heads) + 0.2 * torch.randn(heads, heads) for _ in range(2))]

    return Case(
        mechanism="talking_heads",
        name=f"B{batch} H{heads} T{length} D{width}",
        inputs=inputs,
        headloom=headloom.ops.talking_heads_attention,
        peers={"einsum": einsum, "matmul": matmul, "conv2d": convolution},
        rivals={
            "no_mix": unmixed(composition),
            "no_mix_sdpa": unmixed(scaled_dot_product_attention),
        },
        compiled="conv2d",
        forward_flops=4 * batch * length * length * heads * (width + heads),
        part=beginning,
        dtypes=[torch.float32] if length > 2048 else [torch.float32, torch.bfloat16],
        passes=passes,
        quick=quick,
        length=length,
    )


def cases():
    sizes = [
        case(batch, heads, length, width)
        for heads, width in ((12, 64), (24, 32), (16, 64))
        for length in (512, 1024, 2048)
        for batch in (1, 4)
    ]
    longest = [case(1, 12, 4096, 64, passes=("forward",))]
    return [case(2, 12, 128, 64, quick=True), *sizes, *longest]


def scaling():
    return [case(1, 12, length, 64) for length in LENGTHS]

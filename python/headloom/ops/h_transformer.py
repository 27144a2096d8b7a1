"""Hierarchical attention."""

import torch

from headloom.ops._seed import seed_for


def h_attention(
    q,
    k,
    v,
    *,
    block_size=16,
    causal=False,
    bias=None,
    key_padding_mask=None,
    query_padding_mask=None,
    cu_seqlens=None,
    scale=None,
    dropout_p=0.0,
    seed=None,
    query_mode="coarse",
    center_keys=False,
):
    """Hierarchical attention (Zhu and Soricut, H-Transformer-1D, ACL 2021): exact within a block of
    ``block_size`` tokens and its neighbours, in groups of 2, 4, 8, ... tokens beyond; every pair of
    tokens counts once. Work O(T block_size), memory O(T).

    Args:
        q: queries [B, H, T, D].
        k: keys [B, H, T, D].
        v: values [B, H, T, E].
        block_size: R, even, 2 to 256. With T <= 2 R this is full attention.
        causal: token i sees tokens 0 .. i.
        bias: [H, 4 R - 1], added to the scaled logits of every level by the distance in groups; has a
            gradient.
        key_padding_mask: [B, T] bool, true where a token is padding: unseen, in no mean, output zero.
        query_padding_mask: [B, T] bool for the queries, where they are not the tokens of the keys;
            default ``key_padding_mask``.
        cu_seqlens: [S + 1] boundaries of S packed sequences; B = 1.
        scale: default ``1 / sqrt(D)``.
        dropout_p: dropout on the weights of pairs of groups, 0 <= p < 1.
        seed: 0-dim int64 tensor that fixes the dropout mask.
        query_mode: "coarse", far keys are scored against the query's group, or "fine", against the
            query: closer to full attention, O(T R log(T / R)) work.
        center_keys: subtract the mean of the keys first; not with ``causal``.

    Returns:
        [B, H, T, E]

    Equals ``h_attention_weights(q, k, ...) @ v``, whose T x T weights never exist here.

    >>> q, k, v = torch.randn(3, 2, 4, 100, 16)
    >>> h_attention(q, k, v, causal=True).shape
    torch.Size([2, 4, 100, 16])
    """
    return torch.ops.headloom.h_attention(
        q,
        k,
        v,
        block_size=block_size,
        causal=causal,
        bias=bias,
        key_padding_mask=key_padding_mask,
        query_padding_mask=query_padding_mask,
        cu_seqlens=cu_seqlens,
        scale=scale,
        dropout_p=dropout_p,
        seed=seed_for(seed, dropout_p),
        query_mode=query_mode,
        center_keys=center_keys,
    )


def h_attention_weights(q, k, **options):
    """What ``h_attention`` attends to: the weight of every token for every other, in O(T^2) memory.

    Args:
        q: queries [B, H, T, D].
        k: keys [B, H, T, D].
        options: those of ``h_attention``, without ``cu_seqlens``.

    Returns:
        [B, H, T, T]; rows sum to one. Differentiable.

    >>> q, k, v = torch.randn(3, 1, 2, 50, 8)
    >>> weights = h_attention_weights(q, k, block_size=4)
    >>> torch.allclose(weights @ v, h_attention(q, k, v, block_size=4), atol=1e-5)
    True
    """
    return torch.ops.headloom.h_attention_weights(q, k, **options)


def h_attention_sharded(
    q,
    k,
    v,
    group=None,
    *,
    block_size=16,
    causal=False,
    bias=None,
    key_padding_mask=None,
    scale=None,
):
    """``h_attention`` on a sequence that the ranks of a process group share, C consecutive tokens each.

    Args:
        q: queries of this rank [B, H, C, D], C = R times a power of two, the same on every rank.
        k: keys of this rank [B, H, C, D].
        v: values of this rank [B, H, C, E].
        group: a ``torch.distributed`` process group, the default one if absent; a power of two of
            ranks that divides 2 R.
        block_size, causal, bias, key_padding_mask, scale: as in ``h_attention``; the mask is this
            rank's part.

    Returns:
        [B, H, C, E]: these rows of the whole sequence's result. A rank sends
        (2 log2(C / R) + 1) R (D + E + 1) numbers a head. The gradient of the bias is this rank's part.

    >>> h_attention_sharded(q, k, v, block_size=16)  # doctest: +SKIP
    """
    if group is None:
        group = torch.distributed.group.WORLD
    return torch.ops.headloom.h_attention_sharded(
        q,
        k,
        v,
        group.group_name,
        block_size=block_size,
        causal=causal,
        bias=bias,
        key_padding_mask=key_padding_mask,
        scale=scale,
    )

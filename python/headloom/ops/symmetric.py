"""Symmetric and pairwise dot-product attention."""

import torch

from headloom.ops._seed import seed_for


def symmetric_attention(
    q,
    v,
    pairwise=None,
    *,
    k=None,
    bias=None,
    key_padding_mask=None,
    causal=False,
    cu_seqlens=None,
    scale=None,
    dropout_p=0.0,
    seed=None,
    symmetrize=False,
):
    """Attention whose queries are its keys (Courtois et al., 2024), with coefficients between them:
    ``softmax(scale q A q^T + bias) v``.

    Args:
        q: queries, which are the keys as well [B, Hq, T, D]; Hq divides H, and neighbouring heads
            share them.
        v: values [B, H, T, Dv].
        pairwise: A [H, D, D], row vector convention; without it A is the identity (the plain
            symmetric form).
        k: keys of another sequence, or of the tokens so far [B, Hq, Tk, D]; v is then
            [B, H, Tk, Dv].
        bias: added to the scaled logits; broadcasts to [B, H, T, Tk]; has a gradient.
        key_padding_mask: [B, Tk] bool, true where a key is padding.
        causal: query i sees key j when j <= i + Tk - T (the last query sees every key).
        cu_seqlens: [S + 1] boundaries of S packed sequences; B = 1; neither bias nor k with it.
        scale: default ``1 / sqrt(D)``.
        dropout_p: dropout on the attention weights, 0 <= p < 1.
        seed: 0-dim int64 tensor that fixes the dropout mask.
        symmetrize: the symmetric part ``(A + A^T) / 2`` stands in for A, so that scores are
            symmetric and, without bias and causal mask, half of them need computing.

    Returns:
        [B, H, T, Dv]

    Equals ``torch.softmax(q @ pairwise @ q.mT * scale + bias, -1) @ v``.

    >>> q, v = torch.randn(2, 2, 4, 10, 16)
    >>> symmetric_attention(q, v, torch.randn(4, 16, 16)).shape
    torch.Size([2, 4, 10, 16])
    """
    return torch.ops.headloom.symmetric_attention(
        q,
        v,
        pairwise,
        k=k,
        bias=bias,
        key_padding_mask=key_padding_mask,
        causal=causal,
        cu_seqlens=cu_seqlens,
        scale=scale,
        dropout_p=dropout_p,
        seed=seed_for(seed, dropout_p),
        symmetrize=symmetrize,
    )


def ordinary_projections(weight, bias, pairwise, heads):
    """The query and key projections of the ordinary attention that a pairwise model is, exactly.

    Args:
        weight: of the shared projection, in the layout of ``torch.nn.Linear`` [Hq D, C].
        bias: [Hq D] or None.
        pairwise: A [H, D, D], or None for the plain symmetric form.
        heads: H.

    Returns:
        q_weight [H D, C], q_bias [H D], k_weight [H D, C], k_bias [H D]; biases None without a bias.

    >>> q_weight, _, k_weight, _ = ordinary_projections(
    ...     torch.randn(8, 8), None, torch.randn(2, 4, 4), 2
    ... )
    >>> q_weight.shape, k_weight.shape
    (torch.Size([8, 8]), torch.Size([8, 8]))
    """
    q_weight, q_bias, k_weight, k_bias = torch.ops.headloom.ordinary_projections(
        weight, bias, pairwise, heads
    )
    return (
        q_weight,
        None if bias is None else q_bias,
        k_weight,
        None if bias is None else k_bias,
    )


def nearest_pairwise(q_weight, q_bias, k_weight, k_bias, heads):
    """The pairwise form nearest to ordinary attention, by least squares on the logits' bilinear form.

    Args:
        q_weight: of the query projection, in the layout of ``torch.nn.Linear`` [H D, C].
        q_bias: [H D] or None.
        k_weight: of the key projection [H D, C].
        k_bias: [H D] or None; the softmax does not see it.
        heads: H.

    Returns:
        weight [H D, C] and bias [H D] of the shared projection, A [H, D, D], and for each head the
        residual [H]: the share of the form's norm that is left (0: exact).

    >>> weight, _, _, residual = nearest_pairwise(torch.eye(8), None, torch.eye(8), None, 2)
    >>> weight.shape, bool((residual < 1e-6).all())
    (torch.Size([8, 8]), True)
    """
    return torch.ops.headloom.nearest_pairwise(q_weight, q_bias, k_weight, k_bias, heads)

"""Scaled dot-product attention."""

import torch

from headloom.ops._seed import seed_for


def dot_product_attention(
    q,
    k,
    v,
    *,
    bias=None,
    key_padding_mask=None,
    causal=False,
    scale=None,
    dropout_p=0.0,
    seed=None,
    cu_seqlens_q=None,
    cu_seqlens_k=None,
):
    """Scaled dot-product attention (Vaswani et al., 2017, eq. 1): ``softmax(scale q k^T + bias) v``.

    Args:
        q: queries [B, H, Tq, D].
        k: keys [B, H, Tk, D].
        v: values [B, H, Tk, Dv].
        bias: added to the scaled logits; broadcasts to [B, H, Tq, Tk]; has a gradient.
        key_padding_mask: [B, Tk] bool, true where a key is padding.
        causal: query i sees key j when j <= i + Tk - Tq (the last query sees every key).
        scale: default ``1 / sqrt(D)``.
        dropout_p: dropout on the attention weights, 0 <= p < 1.
        seed: 0-dim int64 tensor that fixes the dropout mask.
        cu_seqlens_q, cu_seqlens_k: [S + 1] boundaries of S packed sequences; both or neither; B = 1.

    Returns:
        [B, H, Tq, Dv]

    Equals ``torch.softmax(q @ k.mT * scale + bias, -1) @ v``.

    >>> q, k, v = torch.randn(3, 2, 4, 10, 16)
    >>> dot_product_attention(q, k, v).shape
    torch.Size([2, 4, 10, 16])
    """
    return torch.ops.headloom.dot_product_attention(
        q,
        k,
        v,
        bias=bias,
        key_padding_mask=key_padding_mask,
        causal=causal,
        scale=scale,
        dropout_p=dropout_p,
        seed=seed_for(seed, dropout_p),
        cu_seqlens_q=cu_seqlens_q,
        cu_seqlens_k=cu_seqlens_k,
    )

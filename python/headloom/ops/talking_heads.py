"""Talking-heads attention."""

import torch

from headloom.ops._seed import seed_for


def talking_heads_attention(
    q,
    k,
    v,
    logits_proj=None,
    weights_proj=None,
    *,
    x2l=None,
    m2l=None,
    x2w=None,
    m2w=None,
    bias=None,
    relative_bias=None,
    key_padding_mask=None,
    causal=False,
    scale=None,
    dropout_p=0.0,
    dropout_site="after_mix",
    seed=None,
    cu_seqlens_q=None,
    cu_seqlens_k=None,
):
    """Talking-heads attention (Shazeer et al., 2020, arXiv 2003.02436): heads mix their logits before
    the softmax and their weights after it. No tensor of size Tq x Tk is ever held.

    K heads of queries and keys, H of the softmax, V of the values.

    Args:
        q: queries [B, K, Tq, D].
        k: keys [B, K, Tk, D].
        v: values [B, V, Tk, E].
        logits_proj: [K, H], or [g, K / g, H / g] for g groups of heads that do not meet. None: logits
            are not mixed, H = K.
        weights_proj: [H, V] or [g, H / g, V / g]. None: weights are not mixed, V = H.
        x2l, m2l, x2w, m2w: dynamic projections, added to logits_proj (l) or weights_proj (w) for one
            query (x) or one key (m): [B, Tq or Tk, ...] and then the shape of the projection.
        bias: added to the mixed logits; broadcasts to [B, H, Tq, Tk].
        relative_bias: [H or 1, Tq + Tk - 1], added to the mixed logits of query i and key j from place
            ``i - j + Tk - 1``: a bias by distance without a Tq x Tk tensor.
        key_padding_mask: [B, Tk] bool, true where a key is padding. Masks hide mixed logits.
        causal: query i sees key j when j <= i + Tk - Tq (the last query sees every key).
        scale: of the products of queries and keys; default ``1 / sqrt(D)``.
        dropout_p: 0 <= p < 1.
        dropout_site: "after_mix", "before_mix" or "per_key" (after the mix, one decision for all
            queries).
        seed: 0-dim int64 tensor that fixes the dropout mask.
        cu_seqlens_q, cu_seqlens_k: [S + 1] boundaries of S packed sequences; both or neither; B = 1.

    Returns:
        [B, V, Tq, E]. All tensors but masks, seed and boundaries have gradients.

    Equals::

        logits = torch.einsum("bkij,kh->bhij", q @ k.mT * scale, logits_proj) + bias
        weights = torch.einsum("bhij,hv->bvij", logits.softmax(-1), weights_proj)
        weights @ v

    >>> q, k, v = torch.randn(3, 2, 4, 10, 16)
    >>> talking_heads_attention(q, k, v, torch.randn(4, 6), torch.randn(6, 4)).shape
    torch.Size([2, 4, 10, 16])
    """
    return torch.ops.headloom.talking_heads_attention(
        q,
        k,
        v,
        logits_proj,
        weights_proj,
        x2l=x2l,
        m2l=m2l,
        x2w=x2w,
        m2w=m2w,
        bias=bias,
        relative_bias=relative_bias,
        key_padding_mask=key_padding_mask,
        causal=causal,
        scale=scale,
        dropout_p=dropout_p,
        dropout_site=dropout_site,
        seed=seed_for(seed, dropout_p),
        cu_seqlens_q=cu_seqlens_q,
        cu_seqlens_k=cu_seqlens_k,
    )

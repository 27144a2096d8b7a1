"""Distances between sets of points: the queries and the keys of attention heads."""

import torch


def conditional_transport(
    u, v, f, g, *, temperature=1.0, rho=0.5, cost="cosine", query_mask=None, key_mask=None
):
    """Bidirectional conditional transport (Zhang et al., NeurIPS 2021), streamed: no [M, N] tensor.

    With ``s = u v^T / temperature``, P the softmax of s over the keys and R that over the queries,
    ``rho * mean_i sum_j P_ij c_ij + (1 - rho) * mean_j sum_i R_ij c_ij``.

    Args:
        u: navigator's vectors of the queries [B, H, M, r].
        v: navigator's vectors of the keys [B, H, N, r].
        f: critic's vectors of the queries [B, H, M, p].
        g: critic's vectors of the keys [B, H, N, p].
        temperature: above 0.
        rho: share of the direction query to key, 0 to 1.
        cost: "cosine", ``1 - f.g`` (f and g of unit length), or "euclidean", ``|f - g|``.
        query_mask: [B, M] bool, true where a query takes no part.
        key_mask: [B, N] bool, true where a key takes no part.

    Returns:
        [B, H], one loss for each sample and head.

    >>> u, v, f, g = torch.randn(4, 2, 3, 10, 16)
    >>> conditional_transport(u, v, f, g).shape
    torch.Size([2, 3])
    """
    return torch.ops.headloom.conditional_transport(
        u,
        v,
        f,
        g,
        temperature=temperature,
        rho=rho,
        cost=cost,
        query_mask=query_mask,
        key_mask=key_mask,
    )


def sinkhorn_divergence(
    x,
    y,
    *,
    eps=0.1,
    cost="half_squared",
    debiased=True,
    sharp=False,
    max_iter=200,
    tol=1e-5,
    gradient="envelope",
    query_mask=None,
    key_mask=None,
):
    """Entropic optimal transport by Sinkhorn's iterations in the log domain, in O(M + N) memory.

    Args:
        x: points [B, H, M, D].
        y: points [B, H, N, D].
        eps: strength of the entropy, in the unit of the cost.
        cost: "half_squared", ``|x - y|^2 / 2``, or "cosine", ``1 - x.y``.
        debiased: subtract half of the cost of each set to itself.
        sharp: the transport cost of the plan instead of the regularised optimum.
        max_iter: most iterations.
        tol: stop when the L1 violation of the rows' marginal is at most this.
        gradient: "envelope", the plan counts as constant (exact for the regularised optimum), or
            "implicit", the derivative of the plan is included in that of the sharp cost.
        query_mask: [B, M] bool, true where a point of x takes no part.
        key_mask: [B, N] bool, true where a point of y takes no part.

    Returns:
        [B, H]. Differentiable once.

    >>> x, y = torch.randn(2, 2, 3, 10, 4)
    >>> sinkhorn_divergence(x, y, eps=1.0).shape
    torch.Size([2, 3])
    """
    return torch.ops.headloom.sinkhorn_divergence(
        x,
        y,
        eps=eps,
        cost=cost,
        debiased=debiased,
        sharp=sharp,
        max_iter=max_iter,
        tol=tol,
        gradient=gradient,
        query_mask=query_mask,
        key_mask=key_mask,
    )


def maximum_mean_discrepancy(x, y, *, bandwidth=1.0, query_mask=None, key_mask=None):
    """Squared mean discrepancy, biased: ``mean k(x, x') + mean k(y, y') - 2 mean k(x, y)`` with
    ``k(x, y) = exp(-|x - y|^2 / (2 bandwidth^2))``.

    Args:
        x: points [B, H, M, D].
        y: points [B, H, N, D].
        bandwidth: above 0.
        query_mask: [B, M] bool, true where a point of x takes no part.
        key_mask: [B, N] bool, true where a point of y takes no part.

    Returns:
        [B, H]

    >>> x, y = torch.randn(2, 2, 3, 10, 4)
    >>> maximum_mean_discrepancy(x, y).shape
    torch.Size([2, 3])
    """
    return torch.ops.headloom.maximum_mean_discrepancy(
        x, y, bandwidth=bandwidth, query_mask=query_mask, key_mask=key_mask
    )

"""Golden values of symmetric_attention, in plain numpy loops; gradients by central differences.

The gradients written are the analytic ones of the paper's equations, each checked by differences.
"""

import math
from pathlib import Path

import numpy as np

from golden import File, check_gradient, sines


def coefficients_of(case, x, h, width):
    if "pairwise" not in x:
        return np.eye(width)
    a = x["pairwise"][h]
    return (a + a.T) / 2 if case["symmetrize"] else a


def weights_of(case, x, b, h, i):
    q = x["q"][b, h * x["q"].shape[1] // x["v"].shape[1]]
    k = x["k"][b, h * x["q"].shape[1] // x["v"].shape[1]] if "k" in x else q
    a = coefficients_of(case, x, h, q.shape[1])
    bias = np.broadcast_to(
        x.get("bias", np.zeros(())), (len(x["v"]), x["v"].shape[1], len(q), len(k))
    )
    logits = []
    for j in range(len(k)):
        hidden = case["mask"] is not None and case["mask"][b][j]
        hidden = hidden or (case["causal"] and j > i + len(k) - len(q))
        score = sum(
            q[i, c] * a[c, d] * k[j, d] for c in range(q.shape[1]) for d in range(q.shape[1])
        )
        logits.append(-math.inf if hidden else case["scale"] * score + bias[b, h, i, j])
    top = max(logits)
    if top == -math.inf:
        return np.zeros(len(k))
    powers = [math.exp(value - top) for value in logits]
    return np.array(powers) / math.fsum(powers)


def attend(case, x):
    v = x["v"]
    rows = (v.shape[0], v.shape[1], x["q"].shape[2])
    weights = np.zeros((*rows, v.shape[2]))
    for b, h, i in np.ndindex(*rows):
        weights[b, h, i] = weights_of(case, x, b, h, i)
    return weights, np.einsum("bhij,bhjd->bhid", weights, v)


def differentiate(case, x, grad_out):
    weights, out = attend(case, x)
    grad_weights = np.einsum("bhid,bhjd->bhij", grad_out, x["v"])
    inner = (weights * grad_weights).sum(-1, keepdims=True)
    grad_scores = weights * (grad_weights - inner)
    grads = {name: np.zeros_like(value) for name, value in x.items()}
    grads["v"] = np.einsum("bhij,bhid->bhjd", weights, grad_out)
    group = x["v"].shape[1] // x["q"].shape[1]
    for b, h in np.ndindex(x["v"].shape[:2]):
        g = h // group
        q = x["q"][b, g]
        k = x["k"][b, g] if "k" in x else q
        a = coefficients_of(case, x, h, q.shape[1])
        ds = case["scale"] * grad_scores[b, h]
        grads["q"][b, g] += ds @ k @ a.T
        grads["k" if "k" in x else "q"][b, g] += ds.T @ q @ a
        if "pairwise" in x:
            grad_a = q.T @ ds @ k
            grads["pairwise"][h] += (grad_a + grad_a.T) / 2 if case["symmetrize"] else grad_a
    if "bias" in x:
        found = grad_scores
        while found.ndim > x["bias"].ndim:
            found = found.sum(0)
        for axis, size in enumerate(x["bias"].shape):
            if size == 1:
                found = found.sum(axis, keepdims=True)
        grads["bias"] = found
    return out, grads


def cases():
    """Name, (B, Hq, H, T, Tk or None, D, Dv), pairwise, symmetrize, causal, scale, mask, bias."""
    mask = [[False, True, False, False, True], [True] * 5]
    yield "symmetric", (1, 2, 2, 4, None, 3, 2), False, False, False, None, None, None
    yield "pairwise", (2, 2, 2, 3, None, 2, 3), True, False, False, None, None, None
    yield "pairwise_causal", (1, 1, 1, 5, None, 3, 2), True, False, True, 0.4, None, None
    yield "constrained", (1, 2, 2, 4, None, 3, 2), True, True, False, None, None, None
    yield "shared_heads", (1, 1, 2, 4, None, 2, 2), True, False, False, None, None, None
    yield "padding", (2, 1, 2, 5, None, 2, 2), True, False, False, None, mask, None
    yield "cross", (1, 1, 2, 3, 5, 2, 2), True, False, True, None, None, None
    yield "bias", (2, 1, 1, 3, None, 2, 2), True, False, False, None, None, (1, 3, 3)


def main():
    file = File()
    for name, sizes, pairwise, symmetrize, causal, scale, mask, bias in cases():
        B, Hq, H, T, Tk, D, Dv = sizes
        case = {
            "symmetrize": symmetrize,
            "causal": causal,
            "scale": scale or 1 / math.sqrt(D),
            "mask": mask,
        }
        x = {"q": sines((B, Hq, T, D), 0.7, 0.1), "v": sines((B, H, Tk or T, Dv), 1.3, -0.2)}
        if pairwise:
            x["pairwise"] = sines((H, D, D), 0.6, 0.9)
        if Tk:
            x["k"] = sines((B, Hq, Tk, D), 0.9, 0.4)
        if bias:
            x["bias"] = sines(bias, 2.1, 0.5)
        grad_out = sines((B, H, T, Dv), 1.7, 0.3)
        out, grads = differentiate(case, x, grad_out)

        def value(moved, case=case, grad_out=grad_out):
            return (attend(case, moved)[1] * grad_out).sum()

        for key, grad in grads.items():
            check_gradient(value, x, key, grad)
        file.case(name)
        file.option("flag", "causal", causal)
        file.option("flag", "symmetrize", symmetrize)
        if scale:
            file.option("number", "scale", scale)
        for key, given in x.items():
            file.tensor("float", key, given)
        if mask:
            file.tensor("mask", "key_padding_mask", np.array(mask))
        file.tensor("grad", "", grad_out)
        file.tensor("expect", "out", out)
        for key, grad in grads.items():
            file.tensor("expect", "grad_" + key, grad)
    file.write(Path(__file__).with_name("symmetric.txt"))


if __name__ == "__main__":
    main()

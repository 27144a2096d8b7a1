"""Golden values of dot_product_attention, in plain numpy loops; gradients checked by differences."""

import math
from pathlib import Path

import numpy as np

from golden import File, check_gradient, sines


def weights_of_row(case, q, k, bias, b, h, i):
    Tq, Tk = q.shape[2], k.shape[2]
    logits = []
    for j in range(Tk):
        hidden = case["mask"] is not None and case["mask"][b][j]
        hidden = hidden or (case["causal"] and j > i + Tk - Tq)
        if hidden:
            logits.append(-math.inf)
            continue
        dot = sum(q[b, h, i, d] * k[b, h, j, d] for d in range(q.shape[3]))
        logits.append(case["scale"] * dot + bias[b, h, i, j])
    top = max(logits)
    if top == -math.inf:
        return np.zeros(Tk)
    powers = [math.exp(x - top) for x in logits]
    return np.array(powers) / math.fsum(powers)


def attend(case, x):
    q, k, v = x["q"], x["k"], x["v"]
    B, H, Tq = q.shape[:3]
    bias = np.broadcast_to(x.get("bias", np.zeros(())), (B, H, Tq, k.shape[2]))
    weights = np.zeros(bias.shape)
    for b, h, i in np.ndindex(B, H, Tq):
        weights[b, h, i] = weights_of_row(case, q, k, bias, b, h, i)
    return weights, np.einsum("bhij,bhjd->bhid", weights, v)


def reduce_to(grad, shape):
    grad = grad.sum(axis=tuple(range(grad.ndim - len(shape))))
    for axis, size in enumerate(shape):
        if size == 1:
            grad = grad.sum(axis=axis, keepdims=True)
    return grad


def differentiate(case, x, grad_out):
    weights, out = attend(case, x)
    grad_weights = np.einsum("bhid,bhjd->bhij", grad_out, x["v"])
    inner = (weights * grad_weights).sum(-1, keepdims=True)
    grad_logits = weights * (grad_weights - inner)
    grads = {
        "q": case["scale"] * np.einsum("bhij,bhjd->bhid", grad_logits, x["k"]),
        "k": case["scale"] * np.einsum("bhij,bhid->bhjd", grad_logits, x["q"]),
        "v": np.einsum("bhij,bhid->bhjd", weights, grad_out),
    }
    if "bias" in x:
        grads["bias"] = reduce_to(grad_logits, x["bias"].shape)
    return out, grads


def cases():
    mask = [[False, True, False, False, True], [True] * 5]
    yield "bidirectional", (1, 2, 3, 4, 2, 3), False, None, None, None
    yield "causal", (1, 1, 4, 4, 3, 3), True, None, None, None
    yield "causal_cross_scaled", (1, 2, 2, 5, 3, 2), True, 0.3, None, None
    yield "more_queries_than_keys", (1, 1, 4, 2, 2, 2), True, None, None, None
    yield "padding", (2, 1, 3, 5, 2, 2), False, None, mask, None
    yield "bias", (2, 2, 3, 3, 2, 2), False, None, None, (2, 1, 3)
    yield "bias_causal_padding", (2, 1, 5, 5, 2, 2), True, 0.7, mask, (1, 1, 5, 5)


def main():
    file = File()
    for name, (B, H, Tq, Tk, D, Dv), causal, scale, mask, bias in cases():
        case = {"causal": causal, "scale": scale or 1 / math.sqrt(D), "mask": mask}
        x = {
            "q": sines((B, H, Tq, D), 0.7, 0.1),
            "k": sines((B, H, Tk, D), 0.9, 0.4),
            "v": sines((B, H, Tk, Dv), 1.3, -0.2),
        }
        if bias:
            x["bias"] = sines(bias, 2.1, 0.5)
        grad_out = sines((B, H, Tq, Dv), 1.7, 0.3)
        out, grads = differentiate(case, x, grad_out)

        def value(moved, case=case, grad_out=grad_out):
            return (attend(case, moved)[1] * grad_out).sum()

        for key, grad in grads.items():
            check_gradient(value, x, key, grad)
        file.case(name)
        file.option("flag", "causal", causal)
        if scale:
            file.option("number", "scale", scale)
        for key, value in x.items():
            file.tensor("float", key, value)
        if mask:
            file.tensor("mask", "key_padding_mask", np.array(mask))
        file.tensor("grad", "", grad_out)
        file.tensor("expect", "out", out)
        for key, grad in grads.items():
            file.tensor("expect", "grad_" + key, grad)
    file.write(Path(__file__).with_name("dot_product.txt"))


if __name__ == "__main__":
    main()

"""Golden values of talking_heads_attention, in plain numpy loops; gradients by differences."""

import math
from pathlib import Path

import numpy as np

from golden import File, check_gradient, sines

PROJECTIONS = {"logits_proj": ("x2l", "m2l"), "weights_proj": ("x2w", "m2w")}


def projection(x, name, b, i, j):
    """The matrix that mixes heads for query i and key j, None where heads are not mixed."""
    if name not in x:
        return None
    by_query, by_key = PROJECTIONS[name]
    matrix = x[name].copy()
    if by_query in x:
        matrix = matrix + x[by_query][b, i]
    if by_key in x:
        matrix = matrix + x[by_key][b, j]
    return matrix


def mix(matrix, heads):
    if matrix is None:
        return heads
    if matrix.ndim == 2:
        return heads @ matrix
    groups = heads.reshape(matrix.shape[0], -1)
    return np.concatenate([group @ part for group, part in zip(groups, matrix, strict=True)])


def visible(case, Tq, Tk, b, i, j):
    hidden = case["mask"] is not None and case["mask"][b][j]
    return not hidden and not (case["causal"] and j > i + Tk - Tq)


def attend(case, x):
    q, k, v = x["q"], x["k"], x["v"]
    B, _, Tq, _ = q.shape
    Tk = k.shape[2]
    out = np.zeros((B, v.shape[1], Tq, v.shape[3]))
    for b, i in np.ndindex(B, Tq):
        keys = [j for j in range(Tk) if visible(case, Tq, Tk, b, i, j)]
        if not keys:
            continue
        logits = []
        for j in keys:
            dots = np.array([case["scale"] * (q[b, h, i] @ k[b, h, j]) for h in range(q.shape[1])])
            mixed = mix(projection(x, "logits_proj", b, i, j), dots)
            if "bias" in x:
                mixed = mixed + np.broadcast_to(x["bias"], (B, len(mixed), Tq, Tk))[b, :, i, j]
            if "relative_bias" in x:
                mixed = mixed + x["relative_bias"][:, i - j + Tk - 1]
            logits.append(mixed)
        logits = np.array(logits)  # [keys, H]
        powers = np.exp(logits - logits.max(0))
        weights = powers / powers.sum(0)
        for row, j in enumerate(keys):
            mixed = mix(projection(x, "weights_proj", b, i, j), weights[row])
            out[b, :, i] += mixed[:, None] * v[b, :, j]
    return out


def gradients(case, x, grad_out):
    """By five-point differences in float64: good to ten digits at the sizes used here."""
    step = 1e-3

    def value(moved):
        return (attend(case, moved) * grad_out).sum()

    found = {}
    for name, tensor in x.items():
        gradient = np.zeros_like(tensor)
        for index in np.ndindex(tensor.shape):
            terms = []
            for far in (-2, -1, 1, 2):
                moved = {key: np.array(other) for key, other in x.items()}
                moved[name][index] += far * step
                terms.append(value(moved))
            gradient[index] = (terms[0] - 8 * terms[1] + 8 * terms[2] - terms[3]) / (12 * step)
        check_gradient(value, x, name, gradient)
        # What is left of a difference of equal numbers.
        found[name] = np.where(np.abs(gradient) < 1e-11, 0.0, gradient)
    return found


def cases():
    mask = [[False, True, False, True], [True] * 4]
    base = {"K": 2, "H": 3, "V": 2, "mix": ("logits_proj", "weights_proj")}
    yield "plain", base | {"scale": 1.0}
    yield "causal", base | {"scale": 1.0, "causal": True}
    yield "logits_only", base | {"V": 3, "mix": ("logits_proj",)}
    yield "weights_only", base | {"H": 2, "V": 3, "mix": ("weights_proj",)}
    yield "neither", base | {"H": 2, "mix": ()}
    yield "bias_padding", base | {"B": 2, "mask": mask, "bias": (3, 3, 1)}
    yield "relative_bias_causal", base | {"relative": 3, "causal": True}
    yield "dynamic", base | {"dynamic": ("x2l", "m2l", "x2w", "m2w")}
    yield "grouped", base | {"K": 4, "H": 2, "V": 2, "groups": 2, "dynamic": ("x2l", "m2w")}


def arguments(options):
    B, K, H, V = options.get("B", 1), options["K"], options["H"], options["V"]
    g = options.get("groups")
    Tq, Tk, D, E = 3, 4, 2, 2
    x = {
        "q": sines((B, K, Tq, D), 0.7, 0.1),
        "k": sines((B, K, Tk, D), 0.9, 0.2),
        "v": sines((B, V, Tk, E), 1.1, 0.3),
    }
    shapes = {
        "logits_proj": (g, K // g, H // g) if g else (K, H),
        "weights_proj": (g, H // g, V // g) if g else (H, V),
    }
    waves = {"logits_proj": (1.3, 0.4), "weights_proj": (1.7, 0.5)}
    for name in options["mix"]:
        x[name] = sines(shapes[name], *waves[name])
    for place, name in enumerate(options.get("dynamic", ())):
        owner = "logits_proj" if name.endswith("l") else "weights_proj"
        length = Tq if name.startswith("x") else Tk
        x[name] = 0.5 * sines((B, length, *shapes[owner]), 2.3 + 0.2 * place, 0.7)
    if "bias" in options:
        x["bias"] = sines(options["bias"], 2.1, 0.5)
    if "relative" in options:
        x["relative_bias"] = sines((options["relative"], Tq + Tk - 1), 1.9, 0.2)
    return x, sines((B, V, Tq, E), 0.5, 0.6)


def main():
    file = File()
    for name, options in cases():
        x, grad_out = arguments(options)
        case = {
            "causal": options.get("causal", False),
            "scale": options.get("scale", 1 / math.sqrt(2)),
            "mask": options.get("mask"),
        }
        file.case(name)
        file.option("flag", "causal", case["causal"])
        if "scale" in options:
            file.option("number", "scale", options["scale"])
        for key, value in x.items():
            file.tensor("float", key, value)
        if case["mask"]:
            file.tensor("mask", "key_padding_mask", np.array(case["mask"]))
        file.tensor("grad", "", grad_out)
        file.tensor("expect", "out", attend(case, x))
        for key, gradient in gradients(case, x, grad_out).items():
            file.tensor("expect", "grad_" + key, gradient)
    file.write(Path(__file__).with_name("talking_heads.txt"))


if __name__ == "__main__":
    main()

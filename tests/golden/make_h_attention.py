"""Golden values of h_attention, pair by pair in plain numpy loops; gradients by differences."""

import math
from pathlib import Path

import numpy as np

from golden import File, sines


def level_of(i, j, block):
    level = 0
    while abs((i >> level) // block - (j >> level) // block) > 1:
        level += 1
    return level


def group(token, level, hidden, time):
    first = (token >> level) << level
    return [t for t in range(first, min(first + (1 << level), time)) if not hidden[t]]


def logit(case, x, b, h, i, j):
    """The scaled score of tokens i and j, and the group of j."""
    hidden, time = case["mask"][b], x["q"].shape[2]
    level = level_of(i, j, case["block_size"])
    keys = group(j, level, hidden, time)
    queries = [i] if case["fine"] else group(i, level, hidden, time)
    if case["causal"]:
        queries = queries[:1]
    q = sum(x["q"][b, h, t] for t in queries) / len(queries)
    k = sum(x["k"][b, h, t] for t in keys) / len(keys)
    if case["center_keys"]:
        there = [t for t in range(time) if not hidden[t]]
        k = k - sum(x["k"][b, h, t] for t in there) / len(there)
    score = case["scale"] * float(q @ k)
    if "bias" in x:
        offset = (j >> level) - (i >> level) + 2 * case["block_size"] - 1
        score += x["bias"][h, offset]
    return score


def attend(case, x):
    B, H, T = x["q"].shape[:3]
    out = np.zeros(x["v"].shape)
    for b, h, i in np.ndindex(B, H, T):
        hidden = case["mask"][b]
        seen = [j for j in range(i + 1 if case["causal"] else T) if not hidden[j]]
        if hidden[i] or not seen:
            continue
        scores = [logit(case, x, b, h, i, j) for j in seen]
        powers = [math.exp(s - max(scores)) for s in scores]
        for j, power in zip(seen, powers, strict=True):
            out[b, h, i] += power / math.fsum(powers) * x["v"][b, h, j]
    return out


def difference(case, x, key, grad_out):
    step = 1e-4
    grad = np.zeros(x[key].shape)
    for index in np.ndindex(grad.shape):
        values = []
        # Richardson: errors of fourth order.
        for size in (-2, -1, 1, 2):
            moved = {name: np.array(value) for name, value in x.items()}
            moved[key][index] += size * step
            values.append((attend(case, moved) * grad_out).sum())
        grad[index] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
    # What is left of a gradient of zero.
    return np.where(np.abs(grad) < 1e-11, 0.0, grad)


def cases():
    none = [[False] * 19]
    holes = [[t in (0, 3, 4, 5, 11, 18) for t in range(19)]]
    yield "bidirectional", 2, False, False, none, False, False
    yield "causal", 2, True, False, none, False, False
    yield "padding", 2, False, False, holes, False, False
    yield "causal_padding_bias", 2, True, False, holes, True, False
    yield "fine_bias", 2, False, True, none, True, False
    yield "causal_fine", 4, True, True, none, False, False
    yield "center_keys_padding", 2, False, False, holes, False, True


def main():
    file = File()
    for name, block, causal, fine, mask, bias, center in cases():
        case = {"block_size": block, "causal": causal, "fine": fine, "mask": mask}
        case |= {"scale": 1 / math.sqrt(2), "center_keys": center}
        x = {
            "q": sines((1, 1, 19, 2), 0.7, 0.1),
            "k": sines((1, 1, 19, 2), 0.9, 0.4),
            "v": sines((1, 1, 19, 2), 1.3, -0.2),
        }
        if bias:
            x["bias"] = sines((1, 4 * block - 1), 2.1, 0.5)
        grad_out = sines((1, 1, 19, 2), 1.7, 0.3)
        out = attend(case, x)
        file.case(name)
        file.lines.append(f"integer block_size {block}")
        file.option("flag", "causal", causal)
        file.option("flag", "center_keys", center)
        file.lines.append(f"text query_mode {'fine' if fine else 'coarse'}")
        for key, value in x.items():
            file.tensor("float", key, value)
        if np.any(mask):
            file.tensor("mask", "key_padding_mask", np.array(mask))
        file.tensor("grad", "", grad_out)
        file.tensor("expect", "out", out)
        for key in x:
            grad = difference(case, x, key, grad_out)
            file.tensor("expect", "grad_" + key, grad)
    file.write(Path(__file__).with_name("h_attention.txt"))


if __name__ == "__main__":
    main()

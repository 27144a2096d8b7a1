"""Golden values of the alignment distances: numpy loops, gradients by differences of the loops.

The values that are asserted below were worked out independently, from the definitions.
"""

import math
from pathlib import Path

import numpy as np

from golden import File


def points(m, n, d):
    q = np.sin(0.7 * np.arange(m)[:, None] + 1.3 * np.arange(d) + 0.1)
    k = np.cos(0.5 * np.arange(n)[:, None] - 0.9 * np.arange(d) + 0.2)
    return q, k


def unit(x):
    return x / np.sqrt((x * x).sum(-1, keepdims=True))


def transport(case, x):
    u, v, f, g = (x[name][0, 0] for name in "uvfg")
    logits = u @ v.T / case.get("temperature", 1.0)
    cost = np.empty_like(logits)
    for i, j in np.ndindex(cost.shape):
        gap = f[i] - g[j]
        euclidean = case.get("cost") == "euclidean"
        cost[i, j] = math.sqrt(gap @ gap) if euclidean else 1 - f[i] @ g[j]
    rows = np.exp(logits - logits.max(1, keepdims=True))
    columns = np.exp(logits - logits.max(0, keepdims=True))
    rows /= rows.sum(1, keepdims=True)
    columns /= columns.sum(0, keepdims=True)
    rho = case.get("rho", 0.5)
    return rho * (rows * cost).sum(1).mean() + (1 - rho) * (columns * cost).sum(0).mean()


def plan(cost, eps):
    m, n = cost.shape
    f, g = np.zeros(m), np.zeros(n)
    for _ in range(3000):
        f = -eps * np.log(np.exp((g[None] - cost) / eps).mean(1))
        g = -eps * np.log(np.exp((f[:, None] - cost) / eps).mean(0))
    return np.exp((f[:, None] + g[None] - cost) / eps) / (m * n), f.mean() + g.mean()


def sinkhorn_cost(case, x, y):
    if case.get("cost") == "cosine":
        return 1 - x @ y.T
    return ((x[:, None] - y[None]) ** 2).sum(-1) / 2


def sinkhorn(case, x):
    q, k = x["x"][0, 0], x["y"][0, 0]

    def value(a, b):
        cost = sinkhorn_cost(case, a, b)
        pi, dual = plan(cost, case["eps"])
        return (pi * cost).sum() if case["sharp"] else dual

    between = value(q, k)
    return between - (value(q, q) + value(k, k)) / 2 if case["debiased"] else between


def discrepancy(case, x):
    q, k = x["x"][0, 0], x["y"][0, 0]

    def mean(a, b):
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / 2).mean()

    return mean(q, q) + mean(k, k) - 2 * mean(q, k)


def gradient(function, case, x, name, step):
    """Central differences of fourth order."""
    result = np.empty_like(x[name])
    for index in np.ndindex(result.shape):
        values = []
        for shift in (-2, -1, 1, 2):
            moved = {key: np.array(value) for key, value in x.items()}
            moved[name][index] += shift * step
            values.append(function(case, moved))
        result[index] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
    # What is left of a derivative that is 0.
    return np.where(np.abs(result) < 1e-11, 0.0, result)


def add(file, name, function, case, x, step=1e-3):
    file.case(name)
    for key, value in case.items():
        kind = {bool: "flag", str: "text", int: "integer"}.get(type(value), "number")
        if kind == "text":
            file.lines.append(f"text {key} {value}")
        else:
            file.option(kind, key, value)
    for key, value in x.items():
        file.tensor("float", key, value)
    file.tensor("grad", "", np.ones((1, 1)))
    file.tensor("expect", "out", np.array([[function(case, x)]]))
    for key in x:
        file.tensor("expect", "grad_" + key, gradient(function, case, x, key, step))


def check(found, expected):
    assert abs(found - expected) < 2e-10 * max(1, abs(expected)) + 1e-10, (found, expected)


def main():
    here = Path(__file__)
    file = File()
    expected = {
        (4, 4, 3): (0.428887179168, 0.494978160214, 0.884756231516),
        (5, 3, 4): (0.507611462622, 0.599925118269, 0.982856825308),
        (1, 1, 4): (0.258510136554, 0.258510136554, 0.719041217948),
        (3, 3, 2): (0.112973764060, 0.117174372339, 0.414862440055),
    }
    for sizes, values in expected.items():
        q, k = points(*sizes)
        f, g = unit(q), unit(k)
        for letter, (u, v), cost, value in zip(
            "abc", ((q, k), (f, g), (f, g)), ("cosine", "cosine", "euclidean"), values, strict=True
        ):
            x = {name: t[None, None] for name, t in zip("uvfg", (u, v, f, g), strict=True)}
            case = {"cost": cost}
            check(transport(case, x), value)
            add(file, f"{letter}_{'x'.join(map(str, sizes))}", transport, case, x)
    q, k = points(4, 4, 3)
    raw = {name: t[None, None] for name, t in zip("uvfg", (q, k, unit(q), unit(k)), strict=True)}
    check(transport({"rho": 1.0}, raw), 0.481536536383)
    check(transport({"rho": 0.0}, raw), 0.376237821954)
    add(file, "one_way", transport, {"rho": 1.0}, raw)
    add(file, "other_way", transport, {"rho": 0.0}, raw)
    both = unit(q), unit(k), unit(q), unit(k)
    x = {name: t[None, None] for name, t in zip("uvfg", both, strict=True)}
    assert abs(transport({"temperature": 0.1}, x) - 0.196111448) < 1e-9
    add(file, "cold", transport, {"temperature": 0.1}, x, 2e-4)
    file.write(here.with_name("conditional_transport.txt"))

    file = File()
    x = {"x": q[None, None], "y": k[None, None]}
    for cost, eps, debiased, sharp, value in [
        ("half_squared", 0.5, False, True, 0.9103612136),
        ("half_squared", 0.5, False, False, 0.9849253165),
        ("half_squared", 0.5, True, False, 0.6639726176),
        ("half_squared", 0.1, False, True, 0.7971974271),
        ("half_squared", 0.1, True, False, 0.7398108856),
        ("cosine", 0.5, False, True, 0.5795859703),
        ("cosine", 0.5, False, False, 0.6157725095),
        ("cosine", 0.1, False, True, 0.4983256769),
    ]:
        case = {"cost": cost, "eps": eps, "debiased": debiased, "sharp": sharp}
        pair = x if cost == "half_squared" else {key: unit(t) for key, t in x.items()}
        check(sinkhorn(case, pair), value)
        case["gradient"] = "implicit"
        case["max_iter"] = 20000
        case["tol"] = 1e-14
        name = f"{cost}_{eps}_{'debiased' if debiased else 'biased'}_{'sharp' if sharp else 'dual'}"
        add(file, name.replace(".", ""), sinkhorn, case, pair)
    file.write(here.with_name("sinkhorn_divergence.txt"))

    file = File()
    check(discrepancy({}, x), 0.4158801525)
    add(file, "plain", discrepancy, {}, x)
    file.write(here.with_name("maximum_mean_discrepancy.txt"))


if __name__ == "__main__":
    main()

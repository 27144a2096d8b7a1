"""Golden values of the operator that tests the conformance suite."""

from pathlib import Path

import numpy as np

from golden import File, check_gradient, sines


def moving_sum(x, gain, decay):
    out = np.zeros_like(x)
    for t in range(x.shape[1]):
        for s in range(t + 1):
            out[:, t] += decay ** (t - s) * gain * x[:, s]
    return out


def main():
    decay, x, gain = 0.8, sines((2, 4, 3), 0.7, 0.2), sines((3,), 1.1, 0.6)
    grad_out = sines(x.shape, 1.3, 0.4)
    grad_x = np.zeros_like(x)
    for t in range(4):
        for s in range(t, 4):
            grad_x[:, t] += decay ** (s - t) * gain * grad_out[:, s]
    grad_gain = (grad_out * moving_sum(x, np.ones(3), decay)).sum((0, 1))
    arguments = {"x": x, "gain": gain}
    for name, grad in (("x", grad_x), ("gain", grad_gain)):
        check_gradient(
            lambda a: (moving_sum(a["x"], a["gain"], decay) * grad_out).sum(), arguments, name, grad
        )
    file = File()
    file.case("decay_0.8")
    file.option("number", "decay", decay)
    file.tensor("float", "x", x)
    file.tensor("float", "gain", gain)
    file.tensor("grad", "", grad_out)
    file.tensor("expect", "out", moving_sum(x, gain, decay))
    file.tensor("expect", "grad_x", grad_x)
    file.tensor("expect", "grad_gain", grad_gain)
    file.write(Path(__file__).with_name("moving_sum.txt"))


if __name__ == "__main__":
    main()

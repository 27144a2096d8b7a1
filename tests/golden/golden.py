import numpy as np


class File:
    def __init__(self):
        self.lines = []

    def case(self, name):
        self.lines.append(f"case {name}")

    def option(self, kind, name, value):
        self.lines.append(f"{kind} {name} {int(value) if kind == 'flag' else value!r}")

    def tensor(self, kind, name, value):
        value = np.asarray(value, dtype=np.float64)
        words = [kind] + ([name] if name else []) + [str(value.ndim), *map(str, value.shape)]
        self.lines.append(" ".join(words))
        flat = [repr(float(x)) for x in value.ravel()]
        self.lines += [" ".join(flat[i : i + 5]) for i in range(0, len(flat), 5)]

    def write(self, path):
        path.write_text("\n".join(self.lines) + "\n")


def sines(shape, step, phase):
    return np.sin(step * np.arange(int(np.prod(shape))) + phase).reshape(shape)


def check_gradient(function, arguments, name, gradient):
    step = 1e-6
    for index in np.ndindex(arguments[name].shape):
        sides = []
        for sign in (1, -1):
            moved = {key: np.array(value) for key, value in arguments.items()}
            moved[name][index] += sign * step
            sides.append(function(moved))
        numeric = (sides[0] - sides[1]) / (2 * step)
        assert abs(numeric - gradient[index]) < 1e-7 * (1 + abs(numeric)), (name, index)

"""An operator's arguments, for the checks that every operator passes."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch


@dataclass
class Example:
    """Differentiable ``tensors`` in float64, and the keyword arguments of one call."""

    id: str
    function: Callable
    name: str  # of the dispatcher's operator
    shapes: list[tuple[int, ...]]
    options: dict = field(default_factory=dict)
    twice: bool = True  # whether a second derivative exists

    def tensors(self, dtype=torch.float64):
        generator = torch.Generator().manual_seed(1)
        return [
            torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
            for shape in self.shapes
        ]

    def __call__(self, *tensors):
        return self.function(*tensors, **self.options)


def padding(batch, length):
    mask = torch.zeros(batch, length, dtype=torch.bool)
    mask[0, 1] = True  # a hole
    mask[-1, length - 2 :] = True
    return mask


BOUNDS = torch.tensor([0, 2, 2, 6])
SEED = torch.tensor(7)

"""The seed of an operator with dropout."""

import torch


def seed_for(seed, p):
    """``seed``; when it is None and there is dropout, one drawn from torch's default generator."""
    return torch.randint(2**62, ()) if seed is None and p > 0.0 else seed

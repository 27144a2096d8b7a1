"""Attention mechanisms that mainstream kernels leave out, as PyTorch operators.

>>> import torch, headloom
>>> q, k, v = torch.randn(3, 1, 2, 5, 8)
>>> headloom.ops.dot_product_attention(q, k, v, causal=True).shape
torch.Size([1, 2, 5, 8])
"""

from headloom import _library

_info = _library.load()

from headloom import alignment, nn, ops  # noqa: E402  (need the library)
from headloom._checkpoint import CheckpointError  # noqa: E402
from headloom.runs import load, save  # noqa: E402

__version__ = _info["headloom"]
__all__ = ["CheckpointError", "alignment", "load", "nn", "ops", "save"]

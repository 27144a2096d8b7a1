"""Conversion between pairwise and ordinary attention, against torch's own attention."""

import pytest
import torch
from torch.nn.functional import linear, scaled_dot_product_attention

import headloom

H, D, C = 3, 4, 12


def weights():
    generator = torch.Generator().manual_seed(2)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return draw(H * D, C), draw(H * D), draw(H, D, D)


def split(x):
    return x.unflatten(-1, (H, D)).transpose(1, 2)


def test_export_is_ordinary_attention():
    weight, bias, pairwise = weights()
    x = torch.randn(2, 9, C, dtype=torch.float64)
    v = torch.randn(2, H, 9, D, dtype=torch.float64)
    q_weight, q_bias, k_weight, k_bias = headloom.ops.ordinary_projections(
        weight, bias, pairwise, H
    )
    ordinary = scaled_dot_product_attention(
        split(linear(x, q_weight, q_bias)), split(linear(x, k_weight, k_bias)), v
    )
    found = headloom.ops.symmetric_attention(split(linear(x, weight, bias)), v, pairwise)
    torch.testing.assert_close(found, ordinary)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_import_of_an_export_is_exact(dtype):
    weight, bias, pairwise = (t.to(dtype) for t in weights())
    exported = headloom.ops.ordinary_projections(weight, bias, pairwise, H)
    found_weight, found_bias, found_pairwise, residual = headloom.ops.nearest_pairwise(*exported, H)
    assert residual.max() < 1e-5
    x = torch.randn(2, 9, C, dtype=dtype) / 4
    v = torch.randn(2, H, 9, D, dtype=dtype)
    torch.testing.assert_close(
        headloom.ops.symmetric_attention(
            split(linear(x, found_weight, found_bias)), v, found_pairwise
        ),
        headloom.ops.symmetric_attention(split(linear(x, weight, bias)), v, pairwise),
        atol=1e-3 if dtype == torch.float32 else 1e-6,
        rtol=1e-3 if dtype == torch.float32 else 1e-6,
    )

"""Modules against the operators that they wrap."""

import pytest
import torch
from torch.nn import functional

from headloom import nn, ops

MODULES = (nn.LightConv, nn.DynamicConv)
modules = pytest.mark.parametrize("make", MODULES, ids=lambda make: make.__name__)


def test_names_are_those_of_cpp():
    light = nn.LightConv(8, 2, 3, conv_bias=True)
    assert set(light.state_dict()) == {
        "in_proj.weight",
        "in_proj.bias",
        "weight",
        "conv_bias",
        "out_proj.weight",
        "out_proj.bias",
    }
    dynamic = nn.DynamicConv(8, 2, 3, kernel_bias=True)
    assert set(dynamic.state_dict()) == {
        "in_proj.weight",
        "in_proj.bias",
        "kernel_proj.weight",
        "kernel_proj.bias",
        "out_proj.weight",
        "out_proj.bias",
    }
    assert nn.DynamicConv(8, 2, 3, conv_dim=6).kernel_proj.weight.shape == (6, 6)


@pytest.mark.parametrize("glu", [True, False])
@pytest.mark.parametrize("causal", [True, False])
def test_layers_are_projections_gate_and_operator(glu, causal):
    padding = torch.tensor([[False] * 9, [False] * 6 + [True] * 3])
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    for make in MODULES:
        layer = make(8, 2, 5, causal=causal, glu=glu).double().eval()
        values = layer.in_proj(x)
        if glu:
            values = values[..., :8] * values[..., 8:].sigmoid()
        values = values.masked_fill(padding.unsqueeze(-1), 0.0)
        options = {"padding": "causal" if causal else "same", "key_padding_mask": padding}
        if make is nn.LightConv:
            mixed = ops.light_conv(values, layer.weight, **options)
        else:
            logits = functional.linear(values, layer.kernel_proj.weight).view(2, 9, 2, 5)
            mixed = ops.dynamic_conv(values, logits, **options)
        torch.testing.assert_close(layer(x, padding), layer.out_proj(mixed))


@modules
def test_packed_sequences_do_not_see_each_other(make):
    layer = make(8, 2, 5).double().eval()
    x = torch.randn(1, 9, 8, dtype=torch.float64)
    packed = layer(x, cu_seqlens=torch.tensor([0, 4, 9]))
    alone = torch.cat([layer(x[:, :4]), layer(x[:, 4:])], 1)
    torch.testing.assert_close(packed, alone)


@modules
def test_dropout_acts_in_training_only(make):
    x = torch.randn(1, 20, 8)
    for options in ({"weight_dropout": 0.4}, {"input_dropout": 0.4}):
        layer = make(8, 2, 5, **options)
        assert not torch.equal(layer(x), layer(x))
        layer.eval()
        assert torch.equal(layer(x), layer(x))


@modules
def test_heads_that_do_not_divide_are_refused(make):
    with pytest.raises(ValueError, match=f"{make.__name__}: expected .* found width 8, heads 3"):
        make(8, 3, 5)

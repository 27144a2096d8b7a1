"""What PyTorch expects of an operator: registration, gradients, compilation, autocast."""

import copy

import pytest
import torch

import headloom
from examples import EXAMPLES

examples = pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.id)


@examples
def test_opcheck(example):
    operator = getattr(torch.ops.headloom, example.name).default
    captured = {}

    def capture(*args, **kwargs):
        captured.update(args=args, kwargs=kwargs)
        return operator(*args, **kwargs)

    # The keyword arguments as the Python function passes them on.
    namespace = torch.ops.headloom
    original = getattr(namespace, example.name)
    setattr(namespace, example.name, capture)
    try:
        example(*example.tensors())
    finally:
        setattr(namespace, example.name, original)
    torch.library.opcheck(operator, captured["args"], captured["kwargs"])


@examples
def test_gradients(example):
    assert torch.autograd.gradcheck(example, example.tensors())


@examples
@pytest.mark.parametrize(
    "fast", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["direction", "whole"]
)
def test_second_gradients(example, fast):
    """Along one random direction; the slow test takes them all."""
    torch.manual_seed(1)
    if not example.twice:
        with pytest.raises(RuntimeError, match="no double backward"):
            torch.autograd.gradgradcheck(example, example.tensors(), fast_mode=fast)
        return
    assert torch.autograd.gradgradcheck(example, example.tensors(), fast_mode=fast)


@pytest.mark.slow
@examples
def test_compiles_whole(example):
    torch.compiler.reset()
    tensors = example.tensors(torch.float32)
    if "bias" in example.options:
        example = copy.copy(example)
        example.options = {**example.options, "bias": example.options["bias"].float()}
    compiled = torch.compile(
        lambda *t: example(*t).sin(), fullgraph=True, dynamic=True, backend="aot_eager"
    )
    found = compiled(*tensors)
    expected = example(*tensors).sin()
    torch.testing.assert_close(found, expected)
    grad = torch.randn_like(found)
    torch.testing.assert_close(
        torch.autograd.grad(found, tensors, grad), torch.autograd.grad(expected, tensors, grad)
    )


@examples
def test_autocast_lowers(example):
    if "bias" in example.options:
        example = copy.copy(example)
        example.options = {**example.options, "bias": example.options["bias"].float()}
    tensors = example.tensors(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = example(*tensors)
    assert output.dtype == torch.bfloat16
    exact = example(*tensors)
    torch.testing.assert_close(output.float(), exact, atol=5e-2, rtol=5e-2)
    for grad in torch.autograd.grad(output.float().sum(), tensors):
        assert grad.dtype == torch.float32 and grad.isfinite().all()


def test_dropout_follows_the_global_seed():
    q, k, v = torch.randn(3, 1, 2, 6, 4)
    torch.manual_seed(3)
    first = headloom.ops.dot_product_attention(q, k, v, dropout_p=0.5)
    second = headloom.ops.dot_product_attention(q, k, v, dropout_p=0.5)
    torch.manual_seed(3)
    again = headloom.ops.dot_product_attention(q, k, v, dropout_p=0.5)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: headloom.ops.dot_product_attention(x, x, x), "q of shape [B, H, Tq, D]"),
        (lambda x: headloom.ops.light_conv(x, torch.ones(3, 3)), "light_conv: expected"),
        (lambda x: headloom.ops.light_conv(x, torch.ones(2, 3), padding="valid"), '"valid"'),
        (lambda x: headloom.ops.dynamic_conv(x, torch.ones(2, 5, 2, 3)), "dynamic_conv: expected"),
    ],
)
def test_refusals_say_what_was_expected(call, words):
    with pytest.raises((RuntimeError, ValueError)) as refusal:
        call(torch.ones(2, 6, 4))
    assert words in str(refusal.value)
    assert "found" in str(refusal.value)

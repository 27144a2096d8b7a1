"""What torch does with operators beyond calling them: shapes without values, export, maps over a batch,
determinism, and the transforms that are refused."""

import copy
import io

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from examples import EXAMPLES

examples = pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.id)
FIRST = list({example.name: example for example in reversed(EXAMPLES)}.values())
operators = pytest.mark.parametrize("example", FIRST, ids=lambda e: e.name)


def in_dtype(example, dtype):
    """The example with its floating options in ``dtype``."""
    example = copy.copy(example)
    example.options = {
        key: value.to(dtype)
        if isinstance(value, torch.Tensor) and value.is_floating_point()
        else value
        for key, value in example.options.items()
    }
    return example


class Call(torch.nn.Module):
    """An operator as a module whose masks and seeds are buffers, as export wants them."""

    def __init__(self, example):
        super().__init__()
        self.example = in_dtype(example, torch.float32)
        for key, value in self.example.options.items():
            if isinstance(value, torch.Tensor):
                self.register_buffer(key, value)

    def forward(self, *tensors):
        buffers = dict(self.named_buffers())
        return self.example.function(*tensors, **{**self.example.options, **buffers})


@examples
def test_shapes_without_values(example):
    """FakeTensor and meta: the shape, dtype and strides that the kernels return."""
    expected = example(*example.tensors())
    with FakeTensorMode() as mode:
        fake = copy.copy(example)
        fake.options = {
            key: mode.from_tensor(value) if isinstance(value, torch.Tensor) else value
            for key, value in example.options.items()
        }
        found = fake(*(mode.from_tensor(tensor) for tensor in example.tensors()))
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert found.stride() == expected.stride()


@examples
def test_deterministic_mode_gives_the_same_bits(example):
    example = in_dtype(example, torch.float32)
    tensors = example.tensors(torch.float32)

    def run():
        output = example(*tensors)
        return [output, *torch.autograd.grad(output.sin().sum(), tensors)]

    plain = run()
    torch.use_deterministic_algorithms(True)
    try:
        first, second = run(), run()
    finally:
        torch.use_deterministic_algorithms(False)
    for a, b, c in zip(plain, first, second, strict=True):
        assert torch.equal(a, b) and torch.equal(b, c)


@operators
def test_export_round_trip(example):
    tensors = tuple(t.detach() for t in example.tensors(torch.float32))
    module = Call(example)
    expected = module(*tensors)
    exported = torch.export.export(module, tensors)
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    again = torch.export.load(file)
    assert any(example.name in str(node.target) for node in again.graph.nodes)
    torch.testing.assert_close(again.module()(*tensors), expected, atol=0, rtol=0)


@operators
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_equals_a_loop(example):
    stacks = [torch.stack([t.detach(), 0.5 * t.detach()]) for t in example.tensors()]
    for stack in stacks:
        stack.requires_grad_()
    mapped = torch.vmap(example)(*stacks)
    looped = torch.stack([example(*pair) for pair in zip(*stacks, strict=True)])
    torch.testing.assert_close(mapped, looped, atol=0, rtol=0)
    grad = torch.randn_like(mapped)
    torch.testing.assert_close(
        torch.autograd.grad(mapped, stacks, grad), torch.autograd.grad(looped, stacks, grad)
    )


@operators
def test_transforms_of_torch_func_are_refused_by_name(example):
    tensors = [t.detach() for t in example.tensors()]
    where = tuple(range(len(tensors)))
    transforms = {
        "grad": lambda: torch.func.grad(lambda *t: example(*t).sum(), where)(*tensors),
        "vjp": lambda: torch.func.vjp(example, *tensors),
        "jacrev": lambda: torch.func.jacrev(example)(*tensors),
        "jvp": lambda: torch.func.jvp(example, tuple(tensors), tuple(tensors)),
    }
    for name, transform in transforms.items():
        with pytest.raises(RuntimeError) as refusal:
            transform()
        assert "found a transform of torch.func" in str(refusal.value), name
        assert str(refusal.value).startswith(example.name)
        assert "torch.autograd.grad" in str(refusal.value)


@operators
def test_forward_mode_is_refused_by_name(example):
    tensors = [t.detach() for t in example.tensors()]
    with forward_ad.dual_level(), pytest.raises(RuntimeError) as refusal:
        example(*(forward_ad.make_dual(t, t) for t in tensors))
    assert str(refusal.value).startswith(example.name)
    assert "forward-mode" in str(refusal.value)


@operators
def test_inference_mode_and_activation_checkpoints(example):
    tensors = example.tensors()
    expected = example(*tensors)
    with torch.inference_mode():
        assert torch.equal(example(*tensors), expected)
    again = checkpoint(example, *tensors, use_reentrant=False)
    torch.testing.assert_close(
        torch.autograd.grad(again.sin().sum(), tensors),
        torch.autograd.grad(expected.sin().sum(), tensors),
        atol=0,
        rtol=0,
    )


@operators
def test_half_types(example):
    """Their errors are theirs: at most a few roundings of the result."""
    exact = example(*example.tensors()).detach()
    for dtype in (torch.bfloat16, torch.float16):
        tensors = example.tensors(dtype)
        output = in_dtype(example, dtype)(*tensors)
        assert output.dtype == dtype
        rounded = [t.detach().double().requires_grad_() for t in tensors]
        expected = in_dtype(in_dtype(example, dtype), torch.float64)(*rounded)
        bound = 8 * torch.finfo(dtype).eps * exact.abs().max().item()
        torch.testing.assert_close(output.double(), expected, atol=bound, rtol=0)
        for grad in torch.autograd.grad(output.sum(), tensors):
            assert grad.dtype == dtype and grad.isfinite().all()

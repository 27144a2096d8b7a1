"""What torch does with modules: every mechanism of the registry, alone and in models."""

import copy
import io
import pickle

import pytest
import torch

from headloom import nn

mixers = pytest.mark.parametrize("name", nn.mixers())
WIDTH, HEADS = 8, 2


def causal_or_not(name, causal=True, **options):
    """A mixer, causal unless the mechanism has no such form."""
    try:
        return nn.make_mixer(name, WIDTH, HEADS, causal, **options)
    except ValueError:
        return nn.make_mixer(name, WIDTH, HEADS, not causal, **options)


def model(name, **changes):
    fields = {
        "vocabulary": 11,
        "dim": WIDTH,
        "heads": HEADS,
        "ffn": 16,
        "layers": 2,
        "max_length": 64,
    }
    causal = causal_or_not(name).causal
    return nn.LanguageModel(
        nn.TransformerConfig(**{**fields, "mixer": name, "causal": causal, **changes})
    )


def gradients(module, x):
    module(x).float().sin().sum().backward()
    found = {name: p.grad.clone() for name, p in module.named_parameters()}
    module.zero_grad()
    return found


@mixers
def test_copies_and_pickles_are_the_module(name):
    module = causal_or_not(name)
    x = torch.randn(2, 9, WIDTH)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    loaded = causal_or_not(name)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), loaded):
        assert torch.equal(other(x), module(x))
        other.zero_grad()
    clone = copy.deepcopy(module)
    with torch.no_grad():  # all of them: a shift alone of a softmax's logits changes nothing
        for parameter in clone.parameters():
            parameter.add_(1.0)
    assert not torch.equal(clone(x), module(x))


@mixers
def test_inference_mode_and_functional_calls(name):
    module = model(name).eval()
    tokens = torch.randint(11, (2, 9))
    expected = module(tokens)
    with torch.inference_mode():
        assert torch.equal(module(tokens), expected)
    twice = {key: 2 * value for key, value in module.state_dict().items()}
    found = torch.func.functional_call(module, twice, (tokens,))
    module.load_state_dict(twice)
    torch.testing.assert_close(found, module(tokens), atol=0, rtol=0)


@mixers
@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
        ),
    ],
)
def test_autocast_lowers_and_gradients_stay(name, device):
    module = causal_or_not(name).to(device)
    x = torch.randn(2, 9, WIDTH, device=device)
    exact = module(x)
    with torch.autocast(device, dtype=torch.bfloat16):
        lowered = module(x)
    assert lowered.dtype == torch.bfloat16
    bound = 16 * torch.finfo(torch.bfloat16).eps * exact.abs().max().item()
    torch.testing.assert_close(lowered.float(), exact, atol=bound, rtol=0)
    lowered.float().sum().backward()
    for parameter in module.parameters():
        if parameter.grad is not None:
            assert parameter.grad.dtype == torch.float32 and parameter.grad.isfinite().all()


@mixers
def test_export_round_trip_with_free_sizes(name):
    module = model(name).eval()
    tokens = torch.randint(11, (3, 9))
    batch, time = torch.export.Dim("batch", min=2, max=16), torch.export.Dim("time", min=2, max=64)
    try:
        exported = torch.export.export(module, (tokens,), dynamic_shapes=({0: batch, 1: time},))
    except torch._dynamo.exc.UserError as error:
        pytest.fail(str(error))
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    again = torch.export.load(file).module()
    for shape in ((3, 9), (2, 23)):
        tokens = torch.randint(11, shape)
        torch.testing.assert_close(again(tokens), module(tokens))


@pytest.mark.slow
@mixers
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_models_compile_whole(name, backend):
    """Forward and backward, without a graph break, at two sizes."""
    torch.compiler.reset()
    module = model(name).double()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend=backend)
    for shape in ((3, 9), (2, 23)):
        tokens = torch.randint(11, shape)
        torch.testing.assert_close(compiled(tokens), module(tokens))
        expected, found = gradients(module, tokens), gradients(compiled, tokens)
        for key, grad in expected.items():
            torch.testing.assert_close(found[f"_orig_mod.{key}"], grad)

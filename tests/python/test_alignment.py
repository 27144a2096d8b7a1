"""The objective on an existing model."""

import copy

import pytest
import torch
from torch import nn

import headloom


class Layer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x):
        q, k, v = (f(x).unflatten(2, (2, -1)).transpose(1, 2) for f in self.children())
        return x + (torch.softmax(q @ k.mT, -1) @ v).transpose(1, 2).flatten(2)


@pytest.fixture
def model():
    torch.manual_seed(1)
    return nn.Sequential(Layer(8), Layer(8)).double()


@pytest.mark.parametrize("form", headloom.alignment.FORMS)
def test_adds_a_loss_and_leaves_the_model_alone(model, form):
    x = torch.randn(3, 6, 8, dtype=torch.float64)
    before, names = model(x), list(model.state_dict())
    objective = headloom.alignment.attach(model, heads=2, form=form, weight=0.5).double()
    output = model(x)
    loss = objective.loss()
    loss.backward()
    assert torch.equal(output, before)
    assert list(model.state_dict()) == names
    assert model[0].query.weight.grad.abs().max() > 0
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name
    assert objective.loss() == 0  # nothing new was seen
    model.eval()
    model(x)
    assert objective.loss() == 0
    objective.detach()
    model.train()
    model(x)
    assert objective.loss() == 0


def test_the_critic_ascends(model):
    x = torch.randn(3, 6, 8, dtype=torch.float64)
    objective = headloom.alignment.attach(model, heads=2, weight=1.0).double()
    for parameter in objective.parameters():
        nn.init.normal_(parameter)
    plain = copy.deepcopy(objective.networks[0])
    plain.reversal = -1.0
    q, k = torch.randn(2, 3, 2, 6, 4, dtype=torch.float64)
    objective.networks[0](q, k).sum().backward()
    plain(q, k).sum().backward()
    other = dict(plain.named_parameters())
    for name, parameter in objective.networks[0].named_parameters():
        sign = 1 if name.startswith("navigator") else -1
        torch.testing.assert_close(parameter.grad, sign * other[name].grad)
    model(x)
    assert objective.loss().isfinite()


def test_refusals(model):
    with pytest.raises(ValueError, match="form among"):
        headloom.alignment.attach(model, heads=2, form="wasserstein")
    with pytest.raises(ValueError, match="as many Linear modules"):
        headloom.alignment.attach(model, heads=2, query="*q_proj", key="*k_proj")
    with pytest.raises(ValueError, match="heads to divide"):
        headloom.alignment.attach(model, heads=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["conditional_transport", "sinkhorn_divergence", "maximum_mean_discrepancy"]
)
def test_distances_compile_for_any_sizes(name):
    torch.compiler.reset()
    distance = getattr(headloom.ops, name)
    compiled = torch.compile(
        lambda *sets: distance(*sets).sin(), fullgraph=True, dynamic=True, backend="aot_eager"
    )
    for points in (5, 9):
        sets = torch.randn(4 if name == "conditional_transport" else 2, 2, 3, points, 4)
        sets = [x.clone().requires_grad_() for x in sets]
        found, expected = compiled(*sets), distance(*sets).sin()
        torch.testing.assert_close(found, expected)
        grad = torch.randn_like(found)
        torch.testing.assert_close(
            torch.autograd.grad(found, sets, grad), torch.autograd.grad(expected, sets, grad)
        )

"""Alignment attention (Zhang et al., NeurIPS 2021) for an existing PyTorch model.

>>> import torch, headloom
>>> class Attention(torch.nn.Module):
...     def __init__(self):
...         super().__init__()
...         self.query, self.key = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
...     def forward(self, x):
...         q, k = self.query(x), self.key(x)
...         return torch.softmax(q @ k.mT, -1) @ x
>>> model = Attention()
>>> objective = headloom.alignment.attach(model, heads=2)
>>> loss = model(torch.randn(3, 5, 8)).square().mean() + objective.loss()
>>> loss.backward()  # optimise model.parameters() and objective.parameters()
>>> objective.detach()
"""

import fnmatch

import torch
from torch import nn

from headloom import ops

FORMS = ("conditional_transport", "adversarial", "optimal_transport", "discrepancy")


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return -ctx.factor * grad, None


def _unit(x):
    return x / (x.norm(dim=-1, keepdim=True) + 1e-6)


class Networks(nn.Module):
    """Critic and navigator, or discriminator, of one layer; shared by its heads.

    Gradients of the critic and the discriminator are reversed: they ascend where the rest descends.
    """

    def __init__(self, form, width, hidden, temperature, rho, eps, reversal):
        super().__init__()
        self.form, self.temperature, self.rho, self.eps = form, temperature, rho, eps
        self.reversal = reversal
        transport = form == "conditional_transport"
        if transport or form == "adversarial":
            self.gate = nn.Linear(width, width)
            self.transform = nn.Linear(width, width)
            self.critic_in = nn.Linear(width, hidden)
            self.critic_out = nn.Linear(hidden, hidden if transport else 1)
        if transport:
            self.navigator_in = nn.Linear(width, hidden)
            self.navigator_out = nn.Linear(hidden, hidden)
        for linear in self.children():
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def _reversed(self, linear, x):
        weight = _Reverse.apply(linear.weight, self.reversal)
        bias = _Reverse.apply(linear.bias, self.reversal)
        return nn.functional.linear(x, weight, bias)

    def _features(self, x):
        """The discriminator's logit or the critic's vector, and the navigator's vector."""
        # The first layers of all networks are one product: the points are read once.
        linears = [self.transform, self.gate]
        weights = [_Reverse.apply(linear.weight, self.reversal) for linear in linears]
        biases = [_Reverse.apply(linear.bias, self.reversal) for linear in linears]
        transport = self.form == "conditional_transport"
        if transport:
            weights.append(self.navigator_in.weight)
            biases.append(self.navigator_in.bias)
        joined = nn.functional.linear(x, torch.cat(weights), torch.cat(biases))
        changed, gate, *rest = joined.split([weight.size(0) for weight in weights], -1)
        highway = torch.lerp(x, changed.relu(), gate.sigmoid())
        adversary = self._reversed(self.critic_out, self._reversed(self.critic_in, highway).relu())
        if not transport:
            return adversary, None
        return _unit(adversary), self.navigator_out(rest[0].relu())

    def forward(self, q, k, mask=None):
        """q and k [B, H, T, D], mask [B, T] true at padding -> [B, H]."""
        masks = {"query_mask": mask, "key_mask": mask}
        if self.form == "conditional_transport":
            sizes = [q.size(2), k.size(2)]
            points, places = (x.split(sizes, 2) for x in self._features(torch.cat([q, k], 2)))
            return ops.conditional_transport(
                *places,
                *points,
                temperature=self.temperature,
                rho=self.rho,
                **masks,
            )
        if self.form == "adversarial":
            softplus = nn.functional.softplus
            value = -softplus(-self._features(q)[0]) - softplus(self._features(k)[0])
            if mask is None:
                return value.mean((2, 3))
            kept = mask.logical_not()[:, None, :, None].to(value.dtype)
            return (value * kept).sum((2, 3)) / kept.sum((2, 3)).clamp_min(1)
        if self.form == "optimal_transport":
            return ops.sinkhorn_divergence(
                _unit(q),
                _unit(k),
                eps=self.eps,
                debiased=False,
                sharp=True,
                gradient="implicit",
                max_iter=100,
                **masks,
            )
        return ops.maximum_mean_discrepancy(q, k, **masks)


class Alignment(nn.Module):
    """What ``attach`` returns: the networks of all layers, and the hooks that watch the model."""

    def __init__(self, pairs, heads, weight, networks):
        super().__init__()
        self.heads, self.weight = heads, weight
        for layer, module in enumerate(networks):  # the names of the C++ objective
            self.add_module(f"layer{layer}", module)
        self._seen = [{} for _ in pairs]
        self._hooks = []
        for layer, (query, key) in enumerate(pairs):
            for name, module in (("q", query), ("k", key)):
                self._hooks.append(module.register_forward_hook(self._watch(layer, name)))

    @property
    def networks(self):
        return list(self.children())

    def _watch(self, layer, name):
        def hook(module, _, output):
            # Without gradients there is nothing to train.
            if module.training and torch.is_grad_enabled():
                self._seen[layer][name] = output

        return hook

    def _heads(self, x):
        split = x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)
        return split if split.dtype == torch.float64 else split.float()

    def loss(self, padding_mask=None):
        """The weighted objective of the last forward pass in training mode; 0 after none.

        Args:
            padding_mask: [B, T] bool, true where a position is padding.
        """
        values = []
        for seen, networks in zip(self._seen, self.networks, strict=True):
            if len(seen) == 2:
                values.append(
                    networks(self._heads(seen["q"]), self._heads(seen["k"]), padding_mask).mean()
                )
            seen.clear()
        return self.weight * torch.stack(values).mean() if values else torch.zeros(())

    def detach(self):
        """Leaves the model as it was."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []


def attach(
    model,
    *,
    heads,
    query="*query",
    key="*key",
    form="conditional_transport",
    weight=0.01,
    hidden=16,
    temperature=1.0,
    rho=0.5,
    eps=0.01,
    reversal=1.0,
):
    """Watches the queries and keys of a model; the model, its weights and its outputs stay the same.

    Args:
        model: any module; a training step adds ``attach(...).loss()`` to its loss.
        heads: H; the outputs of the projections are [B, T, H * D].
        query, key: patterns of the names of the ``Linear`` projections, paired in order. The defaults
            are those of BERT, RoBERTa and ALBERT in transformers.
        form: "conditional_transport", "adversarial", "optimal_transport" or "discrepancy".
        weight: of the objective in the loss.
        hidden: width of the critic's and navigator's vectors.
        temperature, rho: of conditional transport.
        eps: of optimal transport.
        reversal: gradients of the adversary are multiplied by its negative.

    Returns:
        An ``Alignment``: a module with the parameters of the auxiliary networks, ``loss()`` and
        ``detach()``.
    """
    if form not in FORMS:
        raise ValueError(f"alignment: expected form among {', '.join(FORMS)}; found {form!r}.")

    def named(pattern):
        modules = model.named_modules()
        linears = [(n, m) for n, m in modules if isinstance(m, nn.Linear)]
        return [m for n, m in linears if fnmatch.fnmatch(n, pattern)]

    queries, keys = named(query), named(key)
    if not queries or len(queries) != len(keys):
        raise ValueError(
            f"alignment: expected as many Linear modules named {query!r} as {key!r}, one at least; "
            f"found {len(queries)} and {len(keys)}."
        )
    widths = [module.out_features for module in queries]
    if any(width % heads for width in widths):
        raise ValueError(f"alignment: expected heads to divide {widths}; found {heads}.")
    networks = [
        Networks(form, width // heads, hidden, temperature, rho, eps, reversal) for width in widths
    ]
    first = queries[0].weight
    objective = Alignment(list(zip(queries, keys, strict=True)), heads, weight, networks)
    return objective.to(first.device)

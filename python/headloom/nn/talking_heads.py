"""Talking-heads attention between its projections."""

import math

import torch
from torch import nn

from headloom import ops
from headloom.nn.mixer import TokenMixer, fail, register_mixer
from headloom.nn.states import GrowingState, MemoryState
from headloom.nn.tokens import check_word

_WHERE = "mixer talking_heads"
_DYNAMIC = ("x2l", "m2l", "x2w", "m2w")


@torch.no_grad()
def _truncated_normal(weight, variance):
    """Normal numbers cut at two standard deviations, not rescaled."""
    limit = math.erf(2.0 / math.sqrt(2.0))
    weight.uniform_(-limit, limit).erfinv_().mul_(math.sqrt(2.0 * variance))


def t5_buckets(relative_position, causal, buckets, max_distance):
    """The bucket, in [0, buckets), of key positions minus query positions (Raffel et al., 2020)."""
    first = torch.zeros_like(relative_position)
    if causal:
        distance = (-relative_position).clamp_min(0)
    else:
        buckets //= 2
        first = (relative_position > 0).long() * buckets
        distance = relative_position.abs()
    exact = buckets // 2
    step = (buckets - exact) / math.log(max_distance / exact)
    far = (distance.double() / exact).log() * step
    large = (far.clamp(0.0, buckets).long() + exact).clamp_max(buckets - 1)
    return first + torch.where(distance < exact, distance, large)


class TalkingHeadsAttention(TokenMixer):
    """Talking-heads attention of a Transformer (Shazeer et al., 2020): self, causal or not, and cross.

    K, H and V are the heads of keys, softmax and values, D and E the widths of a key and a value.

    Args:
        dim, heads: C and H.
        causal: no position sees a later one; does not concern :meth:`cross`.
        dropout: on the mixed weights, in training; ``dropout_site`` as for the operator.
        init: "paper", or "identity", which equals plain attention and takes a trained model's weights.
        mixing: "both", "logits", "weights" or "none".
        groups: of heads that do not talk to each other.
        dynamic: "none", or some of "x2l,m2l,x2w,m2w".
        key_heads, value_heads, key_width, value_width: K, V, D, E; default ``heads``, ``dim / heads``.
        relative_bias: "none" or "t5", a bias by distance in ``buckets`` up to ``max_distance``.
        scale: "folded" into the queries' initial values or "explicit"; by ``init``.
        bias: whether the projections have biases; by ``init``, not for "paper".

    Parameters ``q_proj``, ``k_proj``, ``v_proj``, ``out_proj``, ``logits_proj`` [K, H], ``weights_proj``
    [H, V] (or in groups), ``x2l``, ``m2l``, ``x2w``, ``m2w``, ``relative_bias`` [H, buckets].

    >>> TalkingHeadsAttention(16, 4, init="identity")(torch.randn(2, 10, 16)).shape
    torch.Size([2, 10, 16])
    """

    mechanism = "talking_heads"

    def __init__(
        self,
        dim,
        heads,
        *,
        causal=False,
        dropout=0.0,
        init="paper",
        mixing="both",
        groups=1,
        dynamic="none",
        key_heads=None,
        value_heads=None,
        key_width=None,
        value_width=None,
        relative_bias="none",
        buckets=32,
        max_distance=128,
        dropout_site="after_mix",
        scale=None,
        bias=None,
    ):
        super().__init__()
        paper = check_word(_WHERE, "init", init, ("paper", "identity")) == "paper"
        self.mixing = check_word(_WHERE, "mixing", mixing, ("both", "logits", "weights", "none"))
        self.relative = check_word(_WHERE, "relative_bias", relative_bias, ("none", "t5")) == "t5"
        self.dropout_site = check_word(
            _WHERE, "dropout_site", dropout_site, ("after_mix", "before_mix", "per_key")
        )
        scale = ("folded" if paper else "explicit") if scale is None else scale
        self.folded = check_word(_WHERE, "scale", scale, ("folded", "explicit")) == "folded"
        self.dim, self.heads, self.groups = dim, heads, groups
        self.causal, self.dropout = causal, dropout
        self.key_heads = heads if key_heads is None else key_heads
        self.value_heads = heads if value_heads is None else value_heads
        self.key_width = dim // heads if key_width is None else key_width
        self.value_width = dim // heads if value_width is None else value_width
        self.buckets, self.max_distance = buckets, max_distance
        self._check(init, dynamic)
        self._make_parameters(not paper if bias is None else bias, dynamic)
        self._initialise_as_paper() if paper else self._initialise_as_identity()

    def _check(self, init, dynamic):
        counts = (self.key_heads, self.heads, self.value_heads)
        found = f"key_heads, heads, value_heads = {counts}, groups = {self.groups}"
        if any(count % self.groups for count in counts):
            fail(_WHERE, "groups that divide the counts of heads", found)
        unmixed = (
            self.mixing in ("weights", "none") and self.key_heads != self.heads,
            self.mixing in ("logits", "none") and self.value_heads != self.heads,
        )
        if any(unmixed) or (init == "identity" and len(set(counts)) > 1):
            fail(_WHERE, "equal counts of heads where they are not mixed", found)
        for name in [] if dynamic == "none" else dynamic.split(","):
            if name not in _DYNAMIC:
                names = ",".join(_DYNAMIC)
                fail(_WHERE, f'dynamic = "none" or some of "{names}"', f'"{dynamic}"')
            if self.mixing not in ("both", "logits" if name[2] == "l" else "weights"):
                fail(_WHERE, f"a mix that {name} adds to", f'mixing = "{self.mixing}"')

    def _shape(self, kind):  # of a mix
        pair = (self.key_heads, self.heads) if kind == "l" else (self.heads, self.value_heads)
        if self.groups == 1:
            return pair
        return (self.groups, pair[0] // self.groups, pair[1] // self.groups)

    def _make_parameters(self, bias, dynamic):
        keys, values = self.key_heads * self.key_width, self.value_heads * self.value_width
        self.q_proj = nn.Linear(self.dim, keys, bias=bias)
        self.k_proj = nn.Linear(self.dim, keys, bias=bias)
        self.v_proj = nn.Linear(self.dim, values, bias=bias)
        self.out_proj = nn.Linear(values, self.dim, bias=bias)
        for name, kind in (("logits", "l"), ("weights", "w")):
            mixed = self.mixing in ("both", name)
            mix = nn.Parameter(torch.zeros(self._shape(kind))) if mixed else None
            self.register_parameter(f"{name}_proj", mix)
        for name in _DYNAMIC:
            outputs = math.prod(self._shape(name[2]))
            wanted = name in dynamic.split(",")
            setattr(self, name, nn.Linear(self.dim, outputs, bias=False) if wanted else None)
        table = nn.Parameter(torch.zeros(self.heads, self.buckets)) if self.relative else None
        self.register_parameter("relative_bias", table)

    def _linears(self):
        return (self.q_proj, self.k_proj, self.v_proj, self.out_proj)

    @torch.no_grad()
    def _initialise_as_paper(self):
        width = self.key_width if self.folded else 1
        _truncated_normal(self.q_proj.weight, 1.0 / (width * self.dim))
        _truncated_normal(self.k_proj.weight, 1.0 / self.dim)
        _truncated_normal(self.v_proj.weight, 1.0 / self.dim)
        _truncated_normal(self.out_proj.weight, 1.0 / (self.value_heads * self.value_width))
        for linear in self._linears():
            if linear.bias is not None:
                linear.bias.zero_()
        heads = {"l": self.key_heads, "w": self.heads}
        for mix, kind in ((self.logits_proj, "l"), (self.weights_proj, "w")):
            if mix is not None:
                _truncated_normal(mix, 1.0 / heads[kind])
        for name in _DYNAMIC:
            if getattr(self, name) is not None:
                _truncated_normal(getattr(self, name).weight, 1e-2 / (heads[name[2]] * self.dim))
        if self.relative_bias is not None:
            _truncated_normal(self.relative_bias, 1.0 / self.dim)

    @torch.no_grad()
    def _initialise_as_identity(self):
        for linear in self._linears():
            nn.init.xavier_uniform_(linear.weight)
            if linear.bias is not None:
                linear.bias.zero_()
        for mix in (self.logits_proj, self.weights_proj):
            if mix is not None:
                mix.copy_(torch.eye(mix.size(-1)).expand_as(mix))
        for name in _DYNAMIC:
            if getattr(self, name) is not None:
                getattr(self, name).weight.zero_()

    def _remember(self, memory):
        """What attention takes of the tokens that are seen."""

        def by_key(linear, kind):
            return None if linear is None else linear(memory).unflatten(2, self._shape(kind))

        return {
            "keys": self.k_proj(memory).unflatten(2, (self.key_heads, -1)).transpose(1, 2),
            "values": self.v_proj(memory).unflatten(2, (self.value_heads, -1)).transpose(1, 2),
            "m2l": by_key(self.m2l, "l"),
            "m2w": by_key(self.m2w, "w"),
        }

    def _attend(self, x, keys, values, m2l, m2w, *, relative=False, **options):
        for name, kind in (("x2l", "l"), ("x2w", "w")):
            linear = getattr(self, name)
            if linear is not None:
                options[name] = linear(x).unflatten(2, self._shape(kind))
        if relative and self.relative_bias is not None:
            place = torch.arange(max(0, x.size(1) + keys.size(2) - 1), device=x.device)
            buckets = t5_buckets(
                x.size(1) - 1 - place, self.causal, self.buckets, self.max_distance
            )
            options["relative_bias"] = self.relative_bias[:, buckets]
        mixed = ops.talking_heads_attention(
            self.q_proj(x).unflatten(2, (self.key_heads, -1)).transpose(1, 2),
            keys,
            values,
            self.logits_proj,
            self.weights_proj,
            m2l=m2l,
            m2w=m2w,
            scale=1.0 if self.folded else None,
            dropout_p=self.dropout if self.training else 0.0,
            dropout_site=self.dropout_site,
            **options,
        )
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def forward(self, x, key_padding_mask=None, cu_seqlens=None):
        return self._attend(
            x,
            **self._remember(x),
            relative=True,
            causal=self.causal,
            key_padding_mask=key_padding_mask,
            cu_seqlens_q=cu_seqlens,
            cu_seqlens_k=cu_seqlens,
        )

    def cross(self, x, memory, memory_padding_mask=None):
        return self._attend(x, **self._remember(memory), key_padding_mask=memory_padding_mask)

    def new_cross_state(self, memory, memory_padding_mask=None):
        return MemoryState(memory.size(1), memory_padding_mask, **self._remember(memory))

    def cross_step(self, x, state):
        self.check_state(state, MemoryState)
        return self._attend(
            x,
            state.keys,
            state.values,
            state.m2l,
            state.m2w,
            key_padding_mask=state.padding_mask,
        )

    def new_state(self, batch):
        self.check_causal()
        return GrowingState(keys=2, values=2, m2l=1, m2w=1)

    def step(self, x, state):
        self.check_state(state, GrowingState)
        state.append(**self._remember(x))
        return self._attend(
            x,
            state.keys,
            state.values,
            state.m2l,
            state.m2w,
            relative=True,
            causal=x.size(1) > 1,
        )


@register_mixer("talking_heads")
def _make(
    config,
    *,
    init="paper",
    mixing="both",
    groups=1,
    dynamic="none",
    key_heads=None,
    value_heads=None,
    key_width=None,
    value_width=None,
    relative_bias="none",
    buckets=32,
    max_distance=128,
    dropout_site="after_mix",
    scale=None,
    bias=None,
):
    options = {name: value for name, value in locals().items() if name != "config"}
    return TalkingHeadsAttention(
        config.dim, config.heads, causal=config.causal, dropout=config.dropout, **options
    )

"""Other mechanisms in the place of a model's self-attention."""

import torch
from torch import nn

from headloom import alignment
from headloom.integrations.transformers._attention import fail, operator

_FAMILIES = ("bert", "roberta", "albert", "gpt2")
_SELF_ATTENTION = ("BertSelfAttention", "RobertaSelfAttention", "AlbertAttention", "GPT2Attention")
_WHERE = "convert"


class TalkingHeads(nn.Module):
    """The mixes of one layer: ``logits_proj`` and ``weights_proj`` [H, H], or None."""

    def __init__(
        self, attention, heads, *, init="identity", mixing="both", dropout_site="after_mix"
    ):
        super().__init__()
        _choose("init", init, ("identity", "paper"))
        _choose("mixing", mixing, ("both", "logits", "weights"))
        _choose("dropout_site", dropout_site, ("after_mix", "before_mix", "per_key"))
        operator("talking_heads_attention")
        self.dropout_site = dropout_site
        for name in ("logits", "weights"):
            mix = None
            if mixing in ("both", name):
                mix = nn.Parameter(torch.eye(heads))
                if init == "paper":
                    nn.init.trunc_normal_(
                        mix, std=heads**-0.5, a=-2 * heads**-0.5, b=2 * heads**-0.5
                    )
            self.register_parameter(f"{name}_proj", mix)


class HTransformer(nn.Module):
    """The settings of one layer, and ``relative_bias`` [H, 4 block_size - 1] if asked for."""

    def __init__(
        self,
        attention,
        heads,
        *,
        block_size=16,
        query_mode="coarse",
        center_keys=False,
        relative_bias=False,
    ):
        super().__init__()
        operator("h_attention")
        _choose("query_mode", query_mode, ("coarse", "fine"))
        if block_size % 2 or not 2 <= block_size <= 256:
            fail(_WHERE, "an even block_size of 2 to 256", f"{block_size}")
        self.block_size = block_size
        self.query_mode = query_mode
        self.center_keys = center_keys and not getattr(attention, "is_causal", False)
        bias = nn.Parameter(torch.zeros(heads, 4 * block_size - 1)) if relative_bias else None
        self.register_parameter("relative_bias", bias)


class _SameAs(nn.Module):
    """The output of another module, which stays where it is in the model."""

    def __init__(self, other):
        super().__init__()
        self._other = (other,)  # not a submodule: its parameters have one name

    def forward(self, x):
        return self._other[0](x)


class _QueryAndValue(nn.Module):
    """GPT-2's joint projection with one part for queries and keys: ``weight`` [C, 2 C], ``bias`` [2 C]."""

    def __init__(self, weight, bias):
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)

    def forward(self, x):
        query, value = (x @ self.weight + self.bias).chunk(2, -1)
        return torch.cat([query, query, value], -1)


class Symmetric(nn.Module):
    """The coefficients of one layer, ``pairwise`` [H, D, D] or None, and ``residual`` [H]: how far the layer
    is from what it was, as a share of the norm of its queries' and keys' product."""

    def __init__(self, attention, heads, *, form="pairwise", initial="nearest"):
        super().__init__()
        operator("symmetric_attention")
        _choose("form", form, ("pairwise", "symmetric"))
        _choose("initial", initial, ("nearest", "identity", "normal"))
        q_weight, q_bias, k_weight, k_bias = _query_and_key(attention)
        width = q_weight.size(0) // heads
        pairwise, residual = torch.eye(width).repeat(heads, 1, 1), torch.full((heads,), torch.nan)
        if form == "symmetric":
            pairwise = None
        elif initial == "normal":
            pairwise = torch.randn_like(pairwise)
        elif initial == "nearest":
            fit = operator("nearest_pairwise")(q_weight, q_bias, k_weight, k_bias, heads)
            q_weight, q_bias, pairwise, residual = (x.to(q_weight.dtype) for x in fit)
        self.register_parameter("pairwise", None if pairwise is None else nn.Parameter(pairwise))
        self.register_buffer("residual", residual)
        _share_projection(attention, q_weight, q_bias)


def _query_and_key(attention):
    """Weights [H D, C] and biases [H D] of queries and keys."""
    if hasattr(attention, "c_attn"):
        weights = attention.c_attn.weight.detach().t().chunk(3)
        biases = attention.c_attn.bias.detach().chunk(3)
        return weights[0], biases[0], weights[1], biases[1]
    query, key = attention.query, attention.key
    return query.weight.detach(), query.bias.detach(), key.weight.detach(), key.bias.detach()


@torch.no_grad()
def _share_projection(attention, weight, bias):
    if hasattr(attention, "c_attn"):
        values = attention.c_attn.weight.chunk(3, 1)[2], attention.c_attn.bias.chunk(3)[2]
        attention.c_attn = _QueryAndValue(
            torch.cat([weight.t(), values[0]], 1), torch.cat([bias, values[1]])
        )
    else:
        attention.query.weight.copy_(weight)
        attention.query.bias.copy_(bias)
        attention.key = _SameAs(attention.query)


class _JoinedAlignment(alignment.Alignment):
    """The objective on projections that hold queries, keys and values side by side."""

    def __init__(self, joined, heads, weight, networks):
        super().__init__([], heads, weight, networks)
        self._seen = [{} for _ in joined]
        for layer, module in enumerate(joined):
            self._hooks.append(module.register_forward_hook(self._watch_joined(layer)))

    def _watch_joined(self, layer):
        def hook(module, _, output):
            if module.training:
                query, key, _ = output.chunk(3, -1)
                self._seen[layer].update(q=query, k=key)

        return hook


def _align(model, attentions, *, form="conditional_transport", weight=0.01, **options):
    heads = _heads_of(model)
    if not hasattr(attentions[0], "c_attn"):
        return alignment.attach(_Only(attentions), heads=heads, form=form, weight=weight, **options)
    _choose("form", form, alignment.FORMS)
    settings = {"hidden": 16, "temperature": 1.0, "rho": 0.5, "eps": 0.01, "reversal": 1.0}
    _check_options("alignment", options, settings)
    width = model.config.hidden_size // heads
    networks = [
        alignment.Networks(form, width, **(settings | options)).to(a.c_attn.weight.device)
        for a in attentions
    ]
    return _JoinedAlignment([a.c_attn for a in attentions], heads, weight, networks)


class _Only(nn.Module):
    """The self-attention of a model, without its attention to an encoder."""

    def __init__(self, attentions):
        super().__init__()
        self.layers = nn.ModuleList(attentions)


def _choose(key, value, allowed):
    if value not in allowed:
        names = ", ".join(f'"{name}"' for name in allowed)
        fail(_WHERE, f"{key} among {names}", f'"{value}"')


def _check_options(mechanism, options, known):
    for key in options:
        if key not in known:
            names = ", ".join(known) or "none"
            fail(_WHERE, f"options of {mechanism} among {names}", key)


def _heads_of(model):
    return model.config.num_attention_heads


def _self_attention(model):
    config = getattr(model, "config", None)
    family = getattr(config, "model_type", type(model).__name__)
    if family not in _FAMILIES:
        fail(_WHERE, "a model of BERT, RoBERTa, ALBERT or GPT-2", str(family))
    found = [m for m in model.modules() if type(m).__name__ in _SELF_ATTENTION]
    found = [m for m in found if not getattr(m, "is_cross_attention", False)]
    if not found:
        fail(
            _WHERE, f"layers among {', '.join(_SELF_ATTENTION)}", f"none in {type(model).__name__}"
        )
    return found


_PARTS = {"talking_heads": TalkingHeads, "symmetric": Symmetric, "h_transformer": HTransformer}


def convert(model, mechanism, **options):
    """Turns a BERT, RoBERTa, ALBERT or GPT-2 model in place to another mechanism in its self-attention.

    Args:
        model: any class of these families; attention to an encoder stays plain.
        mechanism: and its ``options``:

            "talking_heads" (init="identity", mixing="both", dropout_site="after_mix"): parameters
            ``...headloom.logits_proj`` and ``weights_proj`` [H, H] in each layer. With "identity" the
            logits stay as they were; "paper" starts from random mixes; mixing may be "logits" or "weights".

            "symmetric" (form="pairwise", initial="nearest"): keys are projected by the queries' weights, with
            coefficients ``...headloom.pairwise`` [H, D, D] between them, and the keys' weights are gone.
            "nearest" fits the old logits by least squares; ``...headloom.residual`` says how far it got.
            "identity" and "normal" start elsewhere; form "symmetric" has no coefficients. Train afterwards.

            "h_transformer" (block_size=16, query_mode="coarse", center_keys=False, relative_bias=False): the
            same weights; equal to plain attention up to 2 block_size tokens. Without a cache of keys.

            "alignment" (form, weight, hidden, temperature, rho, eps, reversal): an objective for training,
            ``loss = loss + model.headloom_alignment.loss(padding_mask)``; the model computes the same
            bits as before. Its networks are parameters of the model. ALBERT's shared layer is watched where
            it was called last.

            "dot_product": headloom's kernel for the same attention.

    Returns:
        the model. Its state_dict has the new names: to load one, convert first.

    Raises:
        ValueError: another family, mechanism or option, or a model that was converted already.

    >>> from transformers import GPT2Config, GPT2Model
    >>> model = convert(GPT2Model(GPT2Config(n_layer=1)), "talking_heads", mixing="logits")
    """
    _choose("mechanism", mechanism, ("dot_product", "alignment", *_PARTS))
    attentions = _self_attention(model)
    if mechanism == "alignment":
        if hasattr(model, "headloom_alignment"):
            fail(_WHERE, "a model without the objective", "one that has it already")
        model.headloom_alignment = _align(model, attentions, **options)
        return model
    if any(hasattr(attention, "headloom") for attention in attentions):
        fail(_WHERE, "a model as transformers made it", "one that was converted already")
    if mechanism == "dot_product":
        _check_options(mechanism, options, {})
    else:
        part = _PARTS[mechanism]
        _check_options(mechanism, options, part.__init__.__kwdefaults__)
        parts = [part(attention, _heads_of(model), **options) for attention in attentions]
        for attention, made in zip(attentions, parts, strict=True):
            first = next(attention.parameters())
            attention.headloom = made.to(first.device, first.dtype)
    model.set_attn_implementation(f"headloom_{mechanism}")
    return model

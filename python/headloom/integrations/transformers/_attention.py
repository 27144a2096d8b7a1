"""The functions behind the names in the AttentionInterface.

B batch, H heads, Hk heads of keys and values, T queries, Tk keys, D width of a head.
"""

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import (
    bidirectional_mask_function,
    causal_mask_function,
    sdpa_mask,
)

from headloom import ops

# Arguments of other implementations that change the result.
_REFUSED = ("softcap", "s_aux", "output_attentions", "head_mask", "cache")


def fail(where, expected, found, advice=""):
    raise ValueError(f"{where}: expected {expected}; found {found}. {advice}".rstrip())


def operator(name):
    """An operator of this build."""
    if not hasattr(ops, name):
        fail("headloom", f"the operator {name} in headloom.ops", "none of that name")
    return getattr(ops, name)


def mask_for(
    batch_size,
    q_length,
    kv_length,
    q_offset=0,
    kv_offset=0,
    mask_function=causal_mask_function,
    attention_mask=None,
    **options,
):
    """What the functions below take as a mask: None, [B, Tk] bool true at tokens, or, where the pattern is
    more than padding and causality, [B, 1, T, Tk] bool true at what is seen."""
    plain = mask_function is bidirectional_mask_function
    if mask_function is causal_mask_function and not isinstance(q_offset, torch.Tensor):
        # The last query sees every key; a preallocated cache has keys that nothing wrote yet.
        plain = q_offset + q_length == kv_offset + kv_length
    if not plain:
        options |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
        return sdpa_mask(
            batch_size,
            q_length,
            kv_length,
            q_offset,
            kv_offset,
            mask_function,
            attention_mask,
            **options,
        )
    return None if attention_mask is None else attention_mask[:, -kv_length:].bool()


def _repeat(x, heads):  # [B, Hk, Tk, D] -> [B, H, Tk, D]
    return x if x.size(1) == heads else x.repeat_interleave(heads // x.size(1), 1)


def _arguments(name, module, query, attention_mask, kwargs):
    """The keyword arguments that the operators share."""
    for key in _REFUSED:
        if kwargs.get(key) is not None and kwargs[key] is not False:
            fail(name, f"no {key}", f"{key}", 'Use attn_implementation="eager".')
    causal = kwargs.get("is_causal")
    if causal is None:
        causal = getattr(module, "is_causal", True)
    call, bias = {"causal": bool(causal)}, kwargs.get("position_bias")
    if attention_mask is not None and attention_mask.dim() == 2:
        call["key_padding_mask"] = attention_mask.logical_not()
    elif attention_mask is not None:
        call["causal"] = False
        if attention_mask.dtype == torch.bool:
            hidden = torch.zeros_like(attention_mask, dtype=query.dtype)
            attention_mask = hidden.masked_fill(attention_mask.logical_not(), -torch.inf)
        bias = attention_mask if bias is None else bias + attention_mask
    if bias is not None:
        call["bias"] = bias
    for key in ("q", "k"):
        if kwargs.get(f"cu_seq_lens_{key}") is not None:
            call[f"cu_seqlens_{key}"] = kwargs[f"cu_seq_lens_{key}"].to(torch.int64)
    return call


def _one_sequence(name, call):
    """For operators whose queries and keys are the same tokens."""
    queries, keys = call.pop("cu_seqlens_q", None), call.pop("cu_seqlens_k", None)
    if queries is not None:
        if keys is not None and not torch.equal(queries, keys):
            fail(name, "equal boundaries of queries and keys", "others")
        call["cu_seqlens"] = queries
    return call


def dot_product(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs):
    call = _arguments("headloom_dot_product", module, query, attention_mask, kwargs)
    key, value = (_repeat(x, query.size(1)) for x in (key, value))
    mixed = operator("dot_product_attention")(
        query, key, value, scale=scaling, dropout_p=dropout, **call
    )
    return mixed.transpose(1, 2), None


def _converted(function):
    """Modules that convert() left alone, such as attention to an encoder, mix as before."""

    def call(module, *args, **kwargs):
        part = getattr(module, "headloom", None)
        return (dot_product if part is None else function)(module, *args, **kwargs)

    return call


@_converted
def talking_heads(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs):
    call = _arguments("headloom_talking_heads", module, query, attention_mask, kwargs)
    mixes = module.headloom
    mixed = operator("talking_heads_attention")(
        query,
        key,
        value,
        mixes.logits_proj,
        mixes.weights_proj,
        scale=scaling,
        dropout_p=dropout,
        dropout_site=mixes.dropout_site,
        **call,
    )
    return mixed.transpose(1, 2), None


@_converted
def symmetric(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs):
    name = "headloom_symmetric"
    call = _one_sequence(name, _arguments(name, module, query, attention_mask, kwargs))
    if key.size(2) != query.size(2):  # the tokens so far, of a cache
        call["k"] = key
    mixed = operator("symmetric_attention")(
        query, value, module.headloom.pairwise, scale=scaling, dropout_p=dropout, **call
    )
    return mixed.transpose(1, 2), None


def h_transformer(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs):
    name = "headloom_h_transformer"
    call = _one_sequence(name, _arguments(name, module, query, attention_mask, kwargs))
    if "bias" in call:
        fail(
            name,
            "padding and causality as masks",
            "a mask or bias of every query and key",
            'Use "headloom_dot_product".',
        )
    if key.size(2) != query.size(2):
        fail(
            name,
            f"as many keys as the {query.size(2)} queries",
            f"{key.size(2)}",
            "Levels need the whole sequence: pass use_cache=False.",
        )
    part = getattr(module, "headloom", None)
    if part is not None:
        call |= {"block_size": part.block_size, "query_mode": part.query_mode}
        call |= {"bias": part.relative_bias, "center_keys": part.center_keys}
    key, value = (_repeat(x, query.size(1)) for x in (key, value))
    mixed = operator("h_attention")(query, key, value, scale=scaling, dropout_p=dropout, **call)
    return mixed.transpose(1, 2), None


FUNCTIONS = {
    "dot_product": dot_product,
    "talking_heads": talking_heads,
    "symmetric": symmetric,
    "h_transformer": h_transformer,
}


def register():
    for name, function in FUNCTIONS.items():
        AttentionInterface.register(f"headloom_{name}", function)
        AttentionMaskInterface.register(f"headloom_{name}", mask_for)

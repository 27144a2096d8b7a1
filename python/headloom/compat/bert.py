"""BERT and RoBERTa checkpoints of Hugging Face, with their masked-language-model heads.

>>> model = load("bert-base-uncased")                                       # doctest: +SKIP
>>> logits = model(tokens, key_padding_mask, kinds=token_types)             # doctest: +SKIP

``headloom data import`` makes a run of the same, which the trainer fine-tunes.

=================================================  ==============================================
Hugging Face (below ``bert.`` or ``roberta.``)     headloom
=================================================  ==============================================
embeddings.word_embeddings.weight                  encoder.embedding.weight
embeddings.position_embeddings.weight              encoder.positions; RoBERTa's without the rows
                                                   up to the padding's
embeddings.token_type_embeddings.weight            encoder.segments
embeddings.LayerNorm                               encoder.embedding_norm
encoder.layer.i.attention.self.{query,key,value}   encoder.blocks.i.mixer.{q,k,v}_proj
encoder.layer.i.attention.output.dense, LayerNorm  encoder.blocks.i.mixer.out_proj, mixer_norm
encoder.layer.i.intermediate.dense                 encoder.blocks.i.ffn_in
encoder.layer.i.output.dense, LayerNorm            encoder.blocks.i.ffn_out, ffn_norm
pooler.dense                                       pooler
cls.predictions.transform.dense, lm_head.dense     dense
cls.predictions.transform.LayerNorm,               norm
lm_head.layer_norm
cls.predictions.bias, lm_head.bias                 bias
cls.predictions.decoder, lm_head.decoder           output, unless it equals the embedding
=================================================  ==============================================

``gamma`` and ``beta`` of old files are ``weight`` and ``bias``. Copies of tied tensors, position ids and the
next-sentence head are left out and listed; anything else that is not understood is refused by name.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch

from headloom import _safetensors
from headloom.nn import TransformerConfig
from headloom.tasks import MaskedLanguageModel

__all__ = ["Imported", "convert", "load"]


@dataclass
class Imported:
    """Weights by headloom's names, those of the pooler apart, the configuration that they fit, and the names
    of the entries that were left out."""

    weights: dict
    pooler: dict
    config: TransformerConfig
    dropped: list = field(default_factory=list)

    def model(self):
        """The model of the task masked_lm, in evaluation mode."""
        model = MaskedLanguageModel(self.config, tie_embedding="output.weight" not in self.weights)
        model.load_state_dict(self.weights)
        return model.eval()


def _refuse(where, expected, found, advice=""):
    raise ValueError(f"{where}: expected {expected}; found {found}. {advice}".rstrip())


def _check(config, where):
    def need(key, allowed, default):
        value = config.get(key, default)
        if value not in allowed:
            _refuse(where, f"{key} {' or '.join(map(repr, allowed))}", repr(value))
        return value

    kind = need("model_type", ("bert", "roberta"), None)
    need("position_embedding_type", ("absolute",), "absolute")
    need("hidden_act", ("gelu",), "gelu")
    need("is_decoder", (False,), False)
    return kind == "roberta"


class _Source:
    """The state dict, with what is still to be read."""

    def __init__(self, state_dict, where):
        self.where = where
        self.left = {}
        for name, tensor in state_dict.items():
            name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
            self.left[name.replace("LayerNorm.beta", "LayerNorm.bias")] = tensor
        self.dropped = []

    def take(self, name, *shape):
        if name not in self.left:
            _refuse(self.where, f"a tensor {name}", "none of that name")
        tensor = self.left.pop(name)
        if tuple(tensor.shape) != shape:
            _refuse(
                self.where,
                f"{name} of shape {list(shape)}, as the configuration has it",
                f"shape {list(tensor.shape)}",
            )
        return tensor.detach().to(torch.float32).clone()

    def both(self, weights, theirs, ours, *shape):
        """A weight and the bias of its rows."""
        weights[f"{ours}.weight"] = self.take(f"{theirs}.weight", *shape)
        weights[f"{ours}.bias"] = self.take(f"{theirs}.bias", shape[0])

    def drop(self, *names):
        self.dropped += [name for name in names if self.left.pop(name, None) is not None]


def _transformer_config(config, roberta):
    skipped = config.get("pad_token_id", 1) + 1 if roberta else 0
    return TransformerConfig(
        vocabulary=config["vocab_size"],
        dim=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        ffn=config["intermediate_size"],
        norm="post",
        max_length=config["max_position_embeddings"] - skipped,
        segments=config["type_vocab_size"],
        embedding_norm=True,
        norm_eps=config.get("layer_norm_eps", 1e-12),
        dropout=config.get("hidden_dropout_prob", 0.1),
        mixing_dropout=config.get("attention_probs_dropout_prob", 0.1),
    )


def _read_encoder(source, weights, prefix, model, positions):
    dim = model.dim
    part = f"{prefix}embeddings."
    weights["encoder.embedding.weight"] = source.take(
        f"{part}word_embeddings.weight", model.vocabulary, dim
    )
    table = source.take(f"{part}position_embeddings.weight", positions, dim)
    weights["encoder.positions"] = table[positions - model.max_length :].clone()
    weights["encoder.segments"] = source.take(
        f"{part}token_type_embeddings.weight", model.segments, dim
    )
    source.both(weights, f"{part}LayerNorm", "encoder.embedding_norm", dim)
    for index in range(model.layers):
        theirs, ours = f"{prefix}encoder.layer.{index}.", f"encoder.blocks.{index}."
        for name in ("query", "key", "value"):
            source.both(
                weights,
                f"{theirs}attention.self.{name}",
                f"{ours}mixer.{name[0]}_proj",
                dim,
                dim,
            )
        source.both(
            weights,
            f"{theirs}attention.output.dense",
            f"{ours}mixer.out_proj",
            dim,
            dim,
        )
        source.both(weights, f"{theirs}attention.output.LayerNorm", f"{ours}mixer_norm", dim)
        source.both(weights, f"{theirs}intermediate.dense", f"{ours}ffn_in", model.ffn, dim)
        source.both(weights, f"{theirs}output.dense", f"{ours}ffn_out", dim, model.ffn)
        source.both(weights, f"{theirs}output.LayerNorm", f"{ours}ffn_norm", dim)


def _read_head(source, weights, roberta, model):
    head = "lm_head." if roberta else "cls.predictions."
    transform = head if roberta else f"{head}transform."
    source.both(weights, f"{transform}dense", "dense", model.dim, model.dim)
    source.both(
        weights,
        transform + ("layer_norm" if roberta else "LayerNorm"),
        "norm",
        model.dim,
    )
    bias = "bias" if f"{head}bias" in source.left else "decoder.bias"
    weights["bias"] = source.take(head + bias, model.vocabulary)
    source.drop(f"{head}decoder.bias")
    decoder = f"{head}decoder.weight"
    if decoder in source.left:
        output = source.take(decoder, model.vocabulary, model.dim)
        if torch.equal(output, weights["encoder.embedding.weight"]):
            source.dropped.append(decoder)
        else:
            weights["output.weight"] = output


def convert(state_dict, config, where="BERT import"):
    """The state dict of a ``BertForMaskedLM`` or ``RobertaForMaskedLM`` and its config.json as a dict.

    Refuses another ``model_type``, decoders, a ``position_embedding_type`` other than "absolute", a
    ``hidden_act`` other than "gelu", missing tensors, tensors of another shape than the configuration says,
    and tensors that are not understood.
    """
    roberta = _check(config, where)
    model = _transformer_config(config, roberta)
    source, weights, pooler = _Source(state_dict, where), {}, {}
    prefix = "roberta." if roberta else "bert."
    _read_encoder(source, weights, prefix, model, config["max_position_embeddings"])
    _read_head(source, weights, roberta, model)
    if f"{prefix}pooler.dense.weight" in source.left:
        source.both(pooler, f"{prefix}pooler.dense", "pooler", model.dim, model.dim)
    source.drop(
        f"{prefix}embeddings.position_ids",
        "cls.seq_relationship.weight",
        "cls.seq_relationship.bias",
    )
    if source.left:
        _refuse(
            where,
            "the tensors of a model with a masked-language-model head",
            f"{len(source.left)} more, e.g. {min(source.left)}",
        )
    return Imported(weights, pooler, model, source.dropped)


def load(folder):
    """The model of a folder with config.json and model.safetensors: a
    :class:`headloom.tasks.MaskedLanguageModel` in evaluation mode."""
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    path = folder / "model.safetensors"
    return convert(_safetensors.read(path), config, str(path)).model()

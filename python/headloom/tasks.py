"""The models of the trainer's tasks, with the names of their checkpoints."""

import torch
from torch import nn
from torch.nn import functional

from headloom.nn import (
    EncoderDecoder,
    EncoderDecoderConfig,
    LanguageModel,
    MixerChoice,
    Transformer,
    generate,
)

# By task: the model and the keys of a recipe's [task] that it was written for. A key that is not
# among them may change the model in a way that is not known here. A model is made by
# make(config, recipe, weights), with the recipe's [model] and [mixer] in config; sizes that the
# recipe leaves to the data are those of the weights.
TASKS = {}


def _task(name, keys):
    def register(model):
        TASKS[name] = (model, frozenset(keys.split()))
        return model

    return register


def _linear(inputs, outputs):
    linear = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _mean(hidden, padding):
    """The mean of hidden [B, T, C] where padding [B, T] is false."""
    if padding is None:
        return hidden.mean(1)
    kept = padding.logical_not().unsqueeze(2).to(hidden.dtype)  # [B, T, 1]
    return (hidden * kept).sum(1) / kept.sum(1)


def _pooling(recipe):
    pooling = recipe["task"].get("pooling", "cls")
    if pooling not in ("cls", "mean"):
        raise ValueError(f'pooling: expected "cls" or "mean"; found "{pooling}".')
    return pooling


@_task("language_model", "path context train_fraction validation_limit tie_embedding")
class ByteModel(nn.Module):
    """The model of the task language_model: tokens [B, T], the bytes of a text -> logits [B, T, 256].
    ``model`` is a :class:`headloom.nn.LanguageModel`."""

    def __init__(self, config, tie_embedding=True):
        super().__init__()
        self.model = LanguageModel(config, tie_embedding)

    @classmethod
    def make(cls, config, recipe, weights):
        config.vocabulary = weights["model.transformer.embedding.weight"].size(0)
        config.causal = True
        return cls(config, recipe["task"].get("tie_embedding", True))

    def forward(self, tokens, key_padding_mask=None, cu_seqlens=None):
        return self.model(tokens, key_padding_mask, cu_seqlens)

    def write(self, prompt, length, **sampling):
        """``prompt`` and ``length`` bytes more, as ``headloom generate`` prints them with the same options:
        ``temperature``, ``top_k``, ``top_p``, ``seed``. What is not UTF-8 becomes U+FFFD."""
        tokens = torch.tensor([list(prompt.encode())], dtype=torch.int64)
        tokens = tokens.to(self.model.transformer.embedding.weight.device)
        text = generate(self.model, tokens, length, **sampling)[0]
        return bytes(text.tolist()).decode(errors="replace")


@_task(
    "listops",
    "pooling evaluate_on bucket_batches max_length min_length max_depth max_args data_seed train_size "
    "validation_size test_size train_file validation_file test_file",
)
class ListOpsModel(nn.Module):
    """The model of the task listops (headloom/tasks/listops/listops_model.h): tokens [B, T], padded with 0
    on the right -> logits [B, 10]."""

    CLASS = 17  # the learned vector in front of the sequence

    def __init__(self, config, pooling="cls"):
        super().__init__()
        self.pooling = pooling
        self.encoder = Transformer(config)
        self.head_in = nn.Linear(config.dim, config.ffn)
        self.head_out = nn.Linear(config.ffn, 10)
        if pooling == "cls":
            with torch.no_grad():
                self.encoder.embedding.weight[self.CLASS].zero_()

    @classmethod
    def make(cls, config, recipe, weights):
        config.vocabulary = weights["encoder.embedding.weight"].size(0)
        config.causal = False
        return cls(config, _pooling(recipe))

    def forward(self, tokens, key_padding_mask=None):
        """Without a mask, tokens of 0 are padding."""
        padding = tokens == 0 if key_padding_mask is None else key_padding_mask
        if self.pooling == "cls":
            tokens = functional.pad(tokens, (1, 0), value=self.CLASS)
            pooled = self.encoder(tokens, functional.pad(padding, (1, 0), value=False))[:, 0]
        else:
            pooled = _mean(self.encoder(tokens, padding), padding)
        return self.head_out(functional.relu(self.head_in(pooled)))


_TOKENIZER = "tokenizer tokenizer_algorithm tokenizer_lowercase vocabulary"


@_task(
    "masked_lm",
    "path validation_path train_fraction context mask_probability validation_limit tie_embedding "
    + _TOKENIZER,
)
class MaskedLanguageModel(nn.Module):
    """The model of the task masked_lm (headloom/tasks/masked_lm/masked_lm_model.h): tokens [B, T] -> logits
    [B, T, V]. The ids are those of the tokenizer.json that the recipe names."""

    def __init__(self, config, tie_embedding=True):
        super().__init__()
        self.encoder = Transformer(config)
        self.dense = _linear(config.dim, config.dim)
        self.norm = nn.LayerNorm(config.dim)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary))
        self.output = None
        if not tie_embedding:
            self.output = nn.Linear(config.dim, config.vocabulary, bias=False)
            nn.init.normal_(self.output.weight, 0.0, 0.02)

    @classmethod
    def make(cls, config, recipe, weights):
        config.vocabulary = weights["encoder.embedding.weight"].size(0)
        config.causal = False
        return cls(config, recipe["task"].get("tie_embedding", True))

    def forward(self, tokens, key_padding_mask=None, cu_seqlens=None):
        hidden = self.encoder(tokens, key_padding_mask, cu_seqlens)
        features = self.norm(functional.gelu(self.dense(hidden)))
        head = self.encoder.embedding if self.output is None else self.output
        return functional.linear(features, head.weight, self.bias)


@_task(
    "classification",
    "format train_file validation_file max_length bucket_batches pooling metric samples "
    + _TOKENIZER,
)
class ClassificationModel(nn.Module):
    """The model of the task classification (headloom/tasks/classification/classification_model.h): tokens
    [B, T] with the tokenizer's first token in front -> logits [B, classes]."""

    def __init__(self, config, classes, pooling="cls"):
        super().__init__()
        self.pooling = pooling
        self.dropout = config.dropout
        self.encoder = Transformer(config)
        self.pooler = _linear(config.dim, config.dim)
        self.classifier = _linear(config.dim, classes)

    @classmethod
    def make(cls, config, recipe, weights):
        config.vocabulary = weights["encoder.embedding.weight"].size(0)
        config.causal = False
        return cls(config, weights["classifier.weight"].size(0), _pooling(recipe))

    def forward(self, tokens, key_padding_mask=None):
        hidden = self.encoder(tokens, key_padding_mask)  # [B, T, C]
        pooled = hidden[:, 0] if self.pooling == "cls" else _mean(hidden, key_padding_mask)
        pooled = functional.dropout(self.pooler(pooled).tanh(), self.dropout, self.training)
        return self.classifier(pooled)


@_task(
    "translation",
    "tokenizer source_tokenizer target_tokenizer train_source train_target validation_source "
    "validation_target test_source test_target vocabulary evaluate_on max_tokens longest label_smoothing "
    "share_embeddings tie_output beam length_penalty length_alpha length_ratio length_extra "
    "no_repeat_ngram bleu_tokenizer split_compounds bleu_lowercase",
)
class TranslationModel(nn.Module):
    """The model of the task translation: source [B, S] and target [B, T] -> logits [B, T, V]. ``model`` is a
    :class:`headloom.nn.EncoderDecoder`; the ids are those of the tokenizers in the run's folder."""

    def __init__(self, config):
        super().__init__()
        self.model = EncoderDecoder(config)

    @classmethod
    def make(cls, config, recipe, weights):
        def choice(part, name, options):
            stated = dict(recipe.get(part, {}))
            name = stated.pop("name", name)
            options = stated if part in recipe else options
            return MixerChoice(name, config.heads, config.mixing_dropout, options)

        share = "model.target_embedding.weight" not in weights
        target = "source" if share else "target"
        return cls(
            EncoderDecoderConfig(
                source_vocabulary=weights["model.source_embedding.weight"].size(0),
                target_vocabulary=weights[f"model.{target}_embedding.weight"].size(0),
                dim=config.dim,
                ffn=config.ffn,
                encoder_layers=config.layers,
                decoder_layers=recipe["model"].get("decoder_layers", 0) or config.layers,
                norm=config.norm,
                positions=config.positions,
                max_length=config.max_length,
                activation=config.activation,
                dropout=config.dropout,
                ffn_dropout=recipe["model"].get("ffn_dropout", 0.0),
                share_embeddings=share,
                tie_output="model.output.weight" not in weights,
                encoder_mixer=choice("encoder_mixer", config.mixer, config.mixer_options),
                decoder_mixer=choice("decoder_mixer", config.mixer, config.mixer_options),
                cross_mixer=choice("cross_mixer", "dot_product", {}),
            )
        )

    def forward(self, source, target, source_padding_mask=None):
        return self.model(source, target, source_padding_mask)

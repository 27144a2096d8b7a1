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


def _pooling(recipe, default="cls"):
    pooling = recipe["task"].get("pooling", default)
    allowed = ("cls", "mean", "first")
    if pooling not in allowed:
        raise ValueError(f'pooling: expected one of {", ".join(allowed)}; found "{pooling}".')
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


class SequenceClassifier(nn.Module):
    """The classifier of the Long Range Arena (headloom/tasks/sequence_classifier.h): tokens [B, T], padded
    with 0 on the right -> logits [B, classes].

    pooling: "cls" puts the last row of the embedding in front and reads it out, "first" reads the first
    token, "mean" the tokens that are not masked, "mean_all" all of them. Without a mask, tokens of 0 are
    masked if ``mask_zeros``.
    """

    def __init__(self, config, classes, pooling="cls", mask_zeros=True):
        super().__init__()
        self.pooling = pooling
        self.mask_zeros = mask_zeros
        self.encoder = Transformer(config)
        self.head_in = nn.Linear(config.dim, config.ffn)
        self.head_out = nn.Linear(config.ffn, classes)
        if pooling == "cls":
            with torch.no_grad():
                self.encoder.embedding.weight[-1].zero_()

    @classmethod
    def make(cls, config, recipe, weights):
        config.vocabulary = weights["encoder.embedding.weight"].size(0)
        config.causal = False
        task = recipe["task"]
        images = task["name"] in ("image", "pathfinder")
        pooling = _pooling(recipe, "mean" if task["name"] == "pathfinder" else "cls")
        if images and pooling == "mean":
            pooling = "mean_all"
        return cls(
            config,
            weights["head_out.weight"].size(0),
            pooling,
            not images or task.get("mask_zeros", True),
        )

    def forward(self, tokens, key_padding_mask=None):
        pooled = _pooled(
            self.encoder, self.pooling, tokens, self._padding(tokens, key_padding_mask)
        )
        return self.head_out(functional.relu(self.head_in(pooled)))

    def _padding(self, tokens, mask):
        return tokens == 0 if mask is None and self.mask_zeros else mask


def _pooled(encoder, pooling, tokens, padding):
    """[B, T] -> [B, C]"""
    if pooling == "cls":
        tokens = functional.pad(tokens, (1, 0), value=encoder.config.vocabulary - 1)
        if padding is not None:
            padding = functional.pad(padding, (1, 0), value=False)
    hidden = encoder(tokens, padding)
    if pooling in ("cls", "first"):
        return hidden[:, 0]
    return hidden.mean(1) if pooling == "mean_all" else _mean(hidden, padding)


for _name, _keys in {
    "listops": "pooling evaluate_on bucket_batches max_length min_length max_depth max_args data_seed "
    "train_size validation_size test_size train_file validation_file test_file",
    "byte_text": "pooling bucket_batches max_length train_file validation_file",
    "image": "pooling evaluate_on format folder pixels mask_zeros",
    "pathfinder": "pooling evaluate_on size contour_length data_seed train_size validation_size test_size "
    "mask_zeros",
}.items():
    _task(_name, _keys)(SequenceClassifier)


@_task(
    "retrieval",
    "pooling interactions evaluate_on bucket_batches max_length train_file validation_file test_file",
)
class RetrievalModel(nn.Module):
    """The model of the task retrieval (headloom/tasks/retrieval/retrieval_model.h): two texts, tokens
    [B, T] each, padded with 0 on the right -> logits [B, 2]."""

    def __init__(self, config, pooling="first", interactions=False):
        super().__init__()
        self.pooling = pooling
        self.interactions = interactions
        self.encoder = Transformer(config)
        self.head_in = nn.Linear((4 if interactions else 2) * config.dim, config.ffn)
        self.head_middle = nn.Linear(config.ffn, config.ffn // 2)
        self.head_out = nn.Linear(config.ffn // 2, 2)
        if pooling == "cls":
            with torch.no_grad():
                self.encoder.embedding.weight[-1].zero_()

    @classmethod
    def make(cls, config, recipe, weights):
        config.vocabulary = weights["encoder.embedding.weight"].size(0)
        config.causal = False
        return cls(config, _pooling(recipe, "first"), recipe["task"].get("interactions", False))

    def forward(self, first, second):
        a, b = (
            _pooled(self.encoder, self.pooling, tokens, tokens == 0) for tokens in (first, second)
        )
        parts = [a, b, a * b, a - b] if self.interactions else [a, b]
        hidden = functional.relu(self.head_in(torch.cat(parts, 1)))
        return self.head_out(functional.relu(self.head_middle(hidden)))


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
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
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

    def forward(self, tokens, key_padding_mask=None, cu_seqlens=None, kinds=None):
        """``kinds`` [B, T]: BERT's token types, for models with segments; zeros unless given."""
        hidden = self.encoder(tokens, key_padding_mask, cu_seqlens, kinds)
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

    def forward(self, tokens, key_padding_mask=None, kinds=None):
        """``kinds`` [B, T]: 0 in the first text, 1 in the second, for models with segments."""
        hidden = self.encoder(tokens, key_padding_mask, kinds=kinds)  # [B, T, C]
        pooled = hidden[:, 0] if self.pooling == "cls" else _mean(hidden, key_padding_mask)
        pooled = functional.dropout(self.pooler(pooled).tanh(), self.dropout, self.training)
        return self.classifier(pooled)


_T5 = "sentinels decoder_start tie_output "


@_task(
    "span_corruption",
    "path validation_path train_fraction validation_limit context noise_density mean_span "
    + _T5
    + _TOKENIZER,
)
@_task(
    "text_to_text",
    "format train_file validation_file max_length metric bucket_batches negative positive "
    + _T5
    + _TOKENIZER,
)
@_task(
    "translation",
    "tokenizer source_tokenizer target_tokenizer train_source train_target validation_source "
    "validation_target test_source test_target vocabulary evaluate_on max_tokens longest label_smoothing "
    "share_embeddings tie_output beam length_penalty length_alpha length_ratio length_extra "
    "no_repeat_ngram bleu_tokenizer split_compounds bleu_lowercase",
)
class EncoderDecoderModel(nn.Module):
    """The model of the tasks translation, span_corruption and text_to_text: source [B, S] and target [B, T]
    -> logits [B, T, V]. ``model`` is a :class:`headloom.nn.EncoderDecoder`; the ids are those of the
    tokenizers in the run's folder."""

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
                norm_type=config.norm_type,
                norm_eps=config.norm_eps,
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

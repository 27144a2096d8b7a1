"""The model of each task, with its head and its mean loss.

B batch, T tokens, C model width, V vocabulary.
"""

import torch
from torch import nn
from torch.nn import functional as F

from .attention import Masks
from .graph import GraphModel
from .loading import load
from .transformer import Config, EncoderDecoder, Transformer, forms_of


def rows_of(weights, name):
    return weights[name].size(0)


def first_or_mean(hidden, padding, pooling):
    """[B, T, C] -> [B, C]"""
    if pooling in ("cls", "first"):
        return hidden[:, 0]
    if pooling == "mean_all" or padding is None:
        return hidden.mean(1)
    kept = (~padding)[..., None].to(hidden.dtype)
    return (hidden * kept).sum(1) / kept.sum(1)


class LanguageModel(nn.Module):
    def __init__(self, config, recipe, weights):
        super().__init__()
        vocabulary = rows_of(weights, "model.transformer.embedding.weight")
        self.model = nn.ModuleDict({"transformer": Transformer(config, vocabulary, causal=True)})

    def loss(self, batch):
        transformer = self.model["transformer"]
        logits = F.linear(transformer(batch["tokens"]), transformer.embedding.weight)
        return F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten())


class MaskedLanguageModel(nn.Module):
    """The head sees the tokens that are predicted, and no other."""

    def __init__(self, config, recipe, weights):
        super().__init__()
        dim, vocabulary = config.model["dim"], rows_of(weights, "bias")
        self.encoder = Transformer(config, vocabulary)
        self.dense = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, config.model["norm_eps"])
        self.bias = nn.Parameter(torch.empty(vocabulary))

    def loss(self, batch):
        predicted = batch["targets"] != -100
        hidden = self.encoder(batch["tokens"])[predicted]
        features = self.norm(F.gelu(self.dense(hidden)))
        logits = F.linear(features, self.encoder.embedding.weight, self.bias)
        return F.cross_entropy(logits, batch["targets"][predicted])


class Encoded(nn.Module):
    """One vector a sequence: the first token's, that of a learned vector in front (the embedding's last
    row), or a mean."""

    # What a recipe leaves out.
    POOLING = "cls"
    LEARNED = ("listops", "byte_text", "image", "pathfinder", "retrieval")

    def __init__(self, config, recipe, weights):
        super().__init__()
        self.encoder = Transformer(config, rows_of(weights, "encoder.embedding.weight"))
        task = recipe["task"]
        self.pooling = task.get("pooling", self.POOLING)
        if task["name"] == "pathfinder":
            self.pooling = task.get("pooling", "mean")
        self.in_front = self.pooling == "cls" and task["name"] in self.LEARNED
        # Pictures count all of their pixels, the hidden ones too.
        if task["name"] in ("image", "pathfinder") and self.pooling == "mean":
            self.pooling = "mean_all"

    def pooled(self, batch):
        tokens, padding = batch["tokens"], batch.get("padding")
        if self.in_front:
            tokens = F.pad(tokens, (1, 0), value=self.encoder.embedding.num_embeddings - 1)
            padding = None if padding is None else F.pad(padding, (1, 0), value=False)
        hidden = self.encoder(tokens, Masks.of(padding), batch.get("segments"))
        return first_or_mean(hidden, padding, self.pooling)

    def loss(self, batch):
        return F.cross_entropy(self(batch), batch["targets"])


class SequenceClassifier(Encoded):
    def __init__(self, config, recipe, weights):
        super().__init__(config, recipe, weights)
        self.head_in = nn.Linear(config.model["dim"], config.model["ffn"])
        self.head_out = nn.Linear(config.model["ffn"], rows_of(weights, "head_out.bias"))

    def forward(self, batch):
        return self.head_out(F.relu(self.head_in(self.pooled(batch))))


class Classifier(Encoded):
    """BERT's: a pooler and a classifier."""

    def __init__(self, config, recipe, weights):
        super().__init__(config, recipe, weights)
        dim = config.model["dim"]
        self.pooler = nn.Linear(dim, dim)
        self.classifier = nn.Linear(dim, rows_of(weights, "classifier.bias"))
        self.dropout = nn.Dropout(config.model["dropout"])

    def forward(self, batch):
        return self.classifier(self.dropout(torch.tanh(self.pooler(self.pooled(batch)))))


class Retrieval(Encoded):
    """Both texts of a pair through one encoder: rows [2 B], the first texts first."""

    POOLING = "first"

    def __init__(self, config, recipe, weights):
        super().__init__(config, recipe, weights)
        dim, ffn = config.model["dim"], config.model["ffn"]
        self.head_in = nn.Linear(2 * dim, ffn)
        self.head_middle = nn.Linear(ffn, ffn // 2)
        self.head_out = nn.Linear(ffn // 2, 2)

    def forward(self, batch):
        hidden = F.relu(self.head_in(torch.cat(self.pooled(batch).chunk(2), 1)))
        return self.head_out(F.relu(self.head_middle(hidden)))


class TextToText(nn.Module):
    """Translation and what T5 is trained by."""

    def __init__(self, config, recipe, weights):
        super().__init__()
        task = recipe["task"]
        shared = "model.target_embedding.weight" not in weights
        sides = ["source"] if shared else ["source", "target"]
        sizes = [rows_of(weights, f"model.{side}_embedding.weight") for side in sides]
        self.model = EncoderDecoder(config, (sizes[0], sizes[-1]), shared)
        translates = task["name"] == "translation"
        self.smoothing = task.get("label_smoothing", 0.1) if translates else 0.0

    def loss(self, batch):
        logits = self.model(batch["tokens"], batch["decoder_tokens"], batch.get("padding"))
        return F.cross_entropy(
            logits.flatten(0, 1), batch["targets"].flatten(), label_smoothing=self.smoothing
        )


MODELS = {
    "language_model": LanguageModel,
    "masked_lm": MaskedLanguageModel,
    "listops": SequenceClassifier,
    "byte_text": SequenceClassifier,
    "image": SequenceClassifier,
    "pathfinder": SequenceClassifier,
    "classification": Classifier,
    "retrieval": Retrieval,
    "translation": TextToText,
    "span_corruption": TextToText,
    "text_to_text": TextToText,
}


def forms(recipe):
    """All that build() takes for this recipe."""
    if recipe["task"]["name"] == "graph":
        return [(form,) for form in GraphModel.FORMS]
    return forms_of(recipe)


def build(recipe, weights, form):
    """The model of a resolved recipe, as a dict, with these weights, by headloom's names. ``loss(batch)``
    is its mean loss."""
    if recipe["task"]["name"] == "graph":
        return load(GraphModel(recipe, weights, form[0]), weights)
    made = MODELS[recipe["task"]["name"]](Config.of(recipe, form), recipe, weights)
    return load(made, weights)

"""Batches and steps of training as one writes them in Python."""

import math

import torch
from torch.nn.utils.rnn import pad_sequence

from .loading import count_parameters
from .tasks import build


class Batches:
    """The batches of a file of ``training_start``, put together again from their rows at each step.

    Tokens that are padding wherever they stand (``mask_zeros``) stay in their rows; other padding is cut
    off and made anew. ``segments``: the model knows kinds of tokens.
    """

    def __init__(self, tensors, mask_zeros, segments=False):
        self.mask_zeros = mask_zeros
        self.names = ("tokens", "targets", "decoder_tokens", *(("segments",) if segments else ()))
        self.rows = []
        while f"batch.{len(self.rows)}.tokens" in tensors:
            self.rows.append(self._rows(tensors, f"batch.{len(self.rows)}."))

    def _rows(self, tensors, prefix):
        fields = {name: tensors[prefix + name] for name in self.names if prefix + name in tensors}
        padding = tensors.get(prefix + "padding")
        rows = {name: list(values) for name, values in fields.items()}
        if padding is not None and not self.mask_zeros:
            lengths = (~padding).sum(1).tolist()
            for name in rows.keys() & {"tokens", "segments"}:
                rows[name] = [row[:n] for row, n in zip(rows[name], lengths, strict=True)]
        if "decoder_tokens" in rows:
            rows["targets"] = [row[row != -100] for row in rows["targets"]]
            rows["decoder_tokens"] = [
                row[: target.numel()]
                for row, target in zip(rows["decoder_tokens"], rows["targets"], strict=True)
            ]
        elif rows["targets"][0].dim() == 0:
            rows["targets"] = torch.stack(rows["targets"]).tolist()
        return rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        """Batch ``index``; they begin again after the last."""
        rows = self.rows[index % len(self.rows)]
        batch = {"tokens": pad_sequence(rows["tokens"], batch_first=True)}
        if self.mask_zeros:
            batch["padding"] = batch["tokens"] == 0
        else:
            lengths = torch.tensor([row.numel() for row in rows["tokens"]])
            width = batch["tokens"].size(1)
            if int(lengths.min()) < width:
                batch["padding"] = torch.arange(width) >= lengths[:, None]
        if isinstance(rows["targets"][0], int):
            batch["targets"] = torch.tensor(rows["targets"])
        else:
            batch["targets"] = pad_sequence(rows["targets"], True, -100)
        for name in rows.keys() & {"decoder_tokens", "segments"}:
            batch[name] = pad_sequence(rows[name], True)
        return batch


def learning_rate(schedule, peak, steps, step):
    """Of step 1, 2, ..."""
    warmup, end = schedule["warmup"], schedule["steps"] or steps
    if step < warmup:
        return peak * step / warmup
    fall = 1.0 - schedule["min_ratio"]
    done = 1.0 if step >= end else (step - warmup) / (end - warmup)
    shares = {
        "constant": 1.0,
        "linear": 1.0 - fall * done,
        "cosine": schedule["min_ratio"] + fall * (1.0 + math.cos(math.pi * done)) / 2.0,
        "inverse_sqrt": math.sqrt(max(warmup, 1) / step),
    }
    return peak * shares[schedule["name"]]


def make_optimizer(config, model):
    """Weight decay for matrices alone, as usual."""
    parameters = list(model.parameters())
    groups = [
        {
            "params": [p for p in parameters if p.dim() >= 2],
            "weight_decay": config["weight_decay"],
        },
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    make = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[config["name"]]
    return make(
        [group for group in groups if group["params"]],
        lr=config["lr"],
        betas=tuple(config["betas"]),
        eps=config["eps"],
        fused=True,
    )


class Trainer:
    """Step i, from 0, takes batch i."""

    def __init__(self, recipe, weights, batches, form):
        self.recipe, self.batches, self.done = recipe, batches, 0
        self.model = build(recipe, weights, form).train()
        self.parameters = list(self.model.parameters())
        self.optimizer = make_optimizer(recipe["optimizer"], self.model)
        self.decay = recipe["train"]["ema"]
        if self.decay:
            self.averages = [p.detach().clone() for p in self.parameters]

    def count_parameters(self):
        return count_parameters(self.model)

    def set_rate(self):
        recipe = self.recipe
        rate = learning_rate(
            recipe["schedule"], recipe["optimizer"]["lr"], recipe["train"]["steps"], self.done
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def step(self):
        """The loss before the update."""
        loss = self.model.loss(self.batches[self.done])
        loss.backward()
        self.done += 1
        if clip := self.recipe["train"]["clip"]:
            torch.nn.utils.clip_grad_norm_(self.parameters, clip, foreach=True)
        self.set_rate()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.decay:
            with torch.no_grad():
                torch._foreach_lerp_(
                    self.averages,
                    self.parameters,
                    1.0 - min(self.decay, (1 + self.done) / (10 + self.done)),
                )
        return loss.item()

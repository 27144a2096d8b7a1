"""Runs of the command ``headloom train`` as torch modules, and back.

>>> model = headloom.load("runs/tiny_shakespeare")        # a torch module in evaluation mode
>>> model.write("ROMEO:", 200, temperature=0.8)
>>> headloom.save(model, "runs/fine_tuned")               # `headloom eval|generate runs/fine_tuned`
"""

import dataclasses
from dataclasses import dataclass, fields

import torch
from torch import nn
from torch.nn import functional

from headloom import _checkpoint
from headloom.nn import LanguageModel, Transformer, TransformerConfig, generate

__all__ = ["ByteModel", "ListOpsModel", "Run", "load", "save"]

_TASKS = {}


@dataclass
class Run:
    """Where a loaded module comes from."""

    folder: str
    task: str
    step: int
    weights: str  # "best" or "newest"
    recipe: dict
    recipe_text: str


def _fail(where, expected, found, advice=""):
    raise ValueError(f"{where}: expected {expected}; found {found}. {advice}".rstrip())


def _register(task, options):
    """A class that makes the model of a task: ``make(config, options, weights)``. ``options`` are those of the
    recipe's [task] that it understands: others may change the model in a way that is not known here."""

    def register(model):
        _TASKS[task] = (model, options)
        return model

    return register


def _rows(weights, name):
    return weights[name].size(0) if name in weights else 0


@_register(
    "language_model",
    {"path", "context", "train_fraction", "validation_limit", "tie_embedding"},
)
class ByteModel(nn.Module):
    """The model of the task language_model: tokens [B, T], the bytes of a text -> logits [B, T, 256].
    ``model`` is a :class:`headloom.nn.LanguageModel`."""

    def __init__(self, config, tie_embedding=True):
        super().__init__()
        self.model = LanguageModel(config, tie_embedding)

    @classmethod
    def make(cls, config, options, weights):
        config.vocabulary = _rows(weights, "model.transformer.embedding.weight")
        config.causal = True
        return cls(config, options.get("tie_embedding", True))

    def forward(self, tokens, key_padding_mask=None, cu_seqlens=None):
        return self.model(tokens, key_padding_mask, cu_seqlens)

    def write(self, prompt, length, **sampling):
        """``prompt`` and ``length`` bytes more, as ``headloom generate`` prints them with the same options:
        ``temperature``, ``top_k``, ``top_p``, ``seed``. What is not UTF-8 becomes U+FFFD."""
        tokens = torch.tensor([list(prompt.encode())], dtype=torch.int64)
        tokens = tokens.to(self.model.transformer.embedding.weight.device)
        text = generate(self.model, tokens, length, **sampling)[0]
        return bytes(text.tolist()).decode(errors="replace")


_LISTOPS_OPTIONS = (
    "pooling evaluate_on bucket_batches max_length min_length max_depth max_args data_seed train_size "
    "validation_size test_size train_file validation_file test_file"
)


@_register("listops", set(_LISTOPS_OPTIONS.split()))
class ListOpsModel(nn.Module):
    """The model of the task listops (headloom/tasks/listops/listops_model.h): tokens [B, T], padded with 0 on
    the right -> logits [B, 10]."""

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
    def make(cls, config, options, weights):
        config.vocabulary = _rows(weights, "encoder.embedding.weight")
        config.causal = False
        pooling = options.get("pooling", "cls")
        if pooling not in ("cls", "mean"):
            _fail("task listops", 'pooling "cls" or "mean"', f'"{pooling}"')
        return cls(config, pooling)

    def forward(self, tokens, key_padding_mask=None):
        """Without a mask, tokens of 0 are padding."""
        padding = tokens == 0 if key_padding_mask is None else key_padding_mask
        if self.pooling == "cls":
            tokens = functional.pad(tokens, (1, 0), value=self.CLASS)
            pooled = self.encoder(tokens, functional.pad(padding, (1, 0), value=False))[:, 0]
        else:
            hidden = self.encoder(tokens, padding)  # [B, T, C]
            kept = padding.logical_not().unsqueeze(2).to(hidden.dtype)  # [B, T, 1]
            pooled = (hidden * kept).sum(1) / kept.sum(1)
        return self.head_out(functional.relu(self.head_in(pooled)))


def _parse(text, path):
    try:
        import tomllib
    except ImportError:  # Python 3.10
        try:
            import tomli as tomllib
        except ImportError as error:
            raise ImportError(
                f"headloom: expected Python 3.11, or the package tomli, to read {path}; found "
                "neither. Run `pip install tomli`."
            ) from error
    return tomllib.loads(text)


def _config_of(recipe, path):
    """The recipe's [model] and [mixer]."""
    model, mixer = dict(recipe["model"]), dict(recipe["mixer"])
    known = {field.name for field in fields(TransformerConfig)} - {"mixer", "mixer_options"}
    for key in model:
        if key not in known:
            _fail(
                path,
                f"[model] with keys among {', '.join(sorted(known))}",
                key,
                "This version does not know what it does.",
            )
    return TransformerConfig(**model, mixer=mixer.pop("name"), mixer_options=mixer)


def _copy_strictly(where, weights, targets):
    problems = [f"no {name}" for name in targets.keys() - weights.keys()]
    problems += [f"also {name}" for name in weights.keys() - targets.keys()]
    for name in weights.keys() & targets.keys():
        found, target = weights[name], targets[name]
        if found.shape != target.shape or found.dtype != target.dtype:
            problems.append(f"{name} {list(found.shape)} {found.dtype}")
    if problems:
        _fail(where, "the tensors of the model in its recipe", "; ".join(sorted(problems)[:8]))
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(weights[name])


def _live(module):
    """Parameters and buffers by name, each tensor once, as C++ saves them."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def load(run_dir, *, device="cpu"):
    """A run of ``headloom train`` as a torch module, in evaluation mode.

    Reads the resolved recipe and the weights of the best checkpoint, or of the newest when there is no best
    one; with averaged weights (train.ema) those, as validation saw them. What the training data was does
    not matter. Known tasks: language_model (:class:`ByteModel`) and listops (:class:`ListOpsModel`).

    Args:
        run_dir: the folder of the run.
        device: where the weights go.

    Returns:
        a module whose state_dict has the names of the checkpoint; ``module.run`` says where it comes from
        (:class:`Run`).

    Raises:
        ValueError: names the task, mechanism or option that is not known here.
        headloom.CheckpointError: no checkpoint, or none that is whole.
    """
    step, weights, averages, text, which = _checkpoint.find(run_dir)
    path = f"{run_dir}/recipe.toml"
    recipe = _parse(text, path)
    options = dict(recipe["task"])
    task = options.pop("name")
    if task not in _TASKS:
        tasks = ", ".join(_TASKS)
        _fail(path, f"a task among {tasks}", f'"{task}"', "headloom.load() does not know its model.")
    maker, known = _TASKS[task]
    for key in options:
        if key not in known:
            _fail(
                path,
                f"[task] with keys among {', '.join(sorted(known))}",
                key,
                "This version does not know what it does.",
            )
    module = maker.make(_config_of(recipe, path), options, weights)
    live = _live(module)
    _copy_strictly(str(run_dir), weights, live)
    if averages:
        _copy_strictly(str(run_dir), averages, dict(module.named_parameters()))
    module.run = Run(str(run_dir), task, step, which, recipe, text)
    return module.eval().to(device)


def save(module, run_dir):
    """Writes a module that :func:`load` made, with its weights of now, as a new run folder: ``headloom eval``,
    ``generate`` and :func:`load` read it. It holds no optimizer's state, so nothing resumes from it.

    Refuses a folder that has files, and a module that did not come from a run.
    """
    run = getattr(module, "run", None)
    if not isinstance(run, Run):
        _fail("save", "a module that headloom.load() made", type(module).__name__)
    _checkpoint.write_best(run_dir, run.step, _live(module), run.recipe_text)
    module.run = dataclasses.replace(run, folder=str(run_dir), weights="best")

"""Runs of the command ``headloom train`` as torch modules, and back.

>>> model = headloom.load("runs/tiny_shakespeare")        # a torch module in evaluation mode
>>> model.write("ROMEO:", 200, temperature=0.8)
>>> headloom.save(model, "runs/fine_tuned")               # `headloom eval|generate runs/fine_tuned`
"""

import dataclasses
import shutil
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from headloom import _checkpoint
from headloom.nn import TransformerConfig
from headloom.tasks import TASKS

__all__ = ["Run", "load", "save"]


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
    # Of encoder-decoders alone, and where the first weights came from.
    for key in ("ffn_dropout", "decoder_layers", "initial"):
        model.pop(key, None)
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


def _without_objective(tensors):
    """An alignment objective trains beside the model and is no part of what it computes."""
    return {name: t for name, t in tensors.items() if not name.startswith("alignment.")}


def _live(module):
    """Parameters and buffers by name, each tensor once, as C++ saves them."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def load(run_dir, *, device="cpu"):
    """A run of ``headloom train`` as a torch module, in evaluation mode.

    Reads the resolved recipe and the weights of the best checkpoint, or of the newest when there is no best
    one; with averaged weights (train.ema) those, as validation saw them. What the training data was does
    not matter. The models of the known tasks are in :mod:`headloom.tasks`.

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
    if task not in TASKS:
        tasks = ", ".join(sorted(TASKS))
        _fail(
            path, f"a task among {tasks}", f'"{task}"', "headloom.load() does not know its model."
        )
    maker, known = TASKS[task]
    for key in options:
        if key not in known:
            _fail(
                path,
                f"[task] with keys among {', '.join(sorted(known))}",
                key,
                "This version does not know what it does.",
            )
    weights, averages = _without_objective(weights), _without_objective(averages)
    if not weights:
        _fail(str(run_dir), "the weights of a model", "none")
    module = maker.make(_config_of(recipe, path), recipe, weights)
    live = _live(module)
    _copy_strictly(str(run_dir), weights, live)
    if averages:
        _copy_strictly(str(run_dir), averages, dict(module.named_parameters()))
    module.run = Run(str(run_dir), task, step, which, recipe, text)
    return module.eval().to(device)


def save(module, run_dir):
    """Writes a module that :func:`load` made, with its weights of now, as a new run folder, which
    ``headloom eval``, ``generate`` and :func:`load` read. Without an optimizer's state nothing resumes.

    Refuses a folder that has files, and a module that did not come from a run.
    """
    run = getattr(module, "run", None)
    if not isinstance(run, Run):
        _fail("save", "a module that headloom.load() made", type(module).__name__)
    _checkpoint.write_best(run_dir, run.step, _live(module), run.recipe_text)
    for tokenizer in Path(run.folder).glob("*tokenizer.json"):
        shutil.copy(tokenizer, run_dir)
    module.run = dataclasses.replace(run, folder=str(run_dir), weights="best")

"""The checkpoints of a run folder (headloom/train/checkpoint.h): files, sizes and sums."""

import json
import os
import shutil
import warnings
import zlib
from pathlib import Path

from headloom import _safetensors

_FILES = ("model.safetensors", "state.safetensors", "recipe.toml")
_FORMAT = {"format": "headloom checkpoint", "version": 1}


class CheckpointError(RuntimeError):
    """A folder or file that is not a whole checkpoint."""


def fail(path, expected, found, advice=""):
    raise CheckpointError(f"{path}: expected {expected}; found {found}. {advice}".rstrip())


def _sum_of(path):
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return {"bytes": path.stat().st_size, "crc32": crc}


def _own_sum(body):
    """The sum of a manifest without its own entry, as C++ prints it: sorted keys, no spaces."""
    return zlib.crc32(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())


def _read_manifest(path):
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        crc = body.pop("crc32")
        found = {key: body[key] for key in _FORMAT}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        fail(path, "the manifest of a checkpoint", repr(error), "The checkpoint is damaged.")
    if found != _FORMAT:
        fail(path, f"{_FORMAT}", f"{found}", "Use the headloom that wrote it.")
    if crc != _own_sum(body):
        fail(
            path,
            "a manifest whose CRC-32 agrees with its contents",
            "one that does not",
            "The checkpoint is damaged.",
        )
    return body


def read(folder):
    """(step, weights, averages, recipe text) of one checkpoint; ``averages`` are the averaged weights, or
    empty."""
    manifest = _read_manifest(folder / "manifest.json")
    for name in _FILES:
        expected = manifest["files"].get(name)
        found = _sum_of(folder / name) if (folder / name).is_file() else "no such file"
        if found != expected:
            fail(folder / name, f"{expected}, as the manifest says", str(found))
    state = _safetensors.read(folder / "state.safetensors")
    averages = {
        name.removeprefix("ema."): tensor
        for name, tensor in state.items()
        if name.startswith("ema.")
    }
    recipe = (folder / "recipe.toml").read_text(encoding="utf-8")
    return manifest["step"], _safetensors.read(folder / "model.safetensors"), averages, recipe


def find(run_folder):
    """``read()`` of the best checkpoint, else of the newest that is whole, and which it was."""
    folder = Path(run_folder)
    if not folder.is_dir():
        fail(folder, "a run folder", "no such folder")
    checkpoints = folder / "checkpoints"
    if (checkpoints / "best").is_dir():
        return *read(checkpoints / "best"), "best"
    for step in sorted(checkpoints.glob("step_" + "[0-9]" * 8), reverse=True):
        try:
            return *read(step), "newest"
        except CheckpointError as error:
            warnings.warn(f"skipped: {error}", stacklevel=3)
    fail(folder, "a run folder with a checkpoint", "none", "`headloom train` makes one.")


def write_best(run_folder, step, weights, recipe):
    """Makes a run folder whose only checkpoint is "best": what the command evaluates and generates with."""
    folder = Path(run_folder)
    if folder.exists() and any(folder.iterdir()):
        fail(folder, "a folder that does not exist, or an empty one", "one with files in it")
    best = folder / "checkpoints" / "best"
    partial = best.with_name("best.tmp")
    partial.mkdir(parents=True)
    try:
        _safetensors.write(partial / "model.safetensors", weights)
        _safetensors.write(partial / "state.safetensors", {})
        (partial / "recipe.toml").write_text(recipe, encoding="utf-8")
        body = {
            **_FORMAT,
            "step": step,
            "files": {name: _sum_of(partial / name) for name in _FILES},
        }
        body["crc32"] = _own_sum(body)
        manifest = json.dumps(body, indent=2, sort_keys=True) + "\n"
        (partial / "manifest.json").write_text(manifest, encoding="utf-8")
        os.replace(partial, best)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    (folder / "recipe.toml").write_text(recipe, encoding="utf-8")

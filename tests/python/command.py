"""The command `headloom` of the build tree."""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = ROOT / "build" / "headloom"

needed = pytest.mark.skipif(not COMMAND.exists(), reason="build/headloom is not built")


def run(*words):
    """What the command prints."""
    # Models of a few thousand parameters: threads would wait for each other most of the time.
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    done = subprocess.run(
        [str(COMMAND), *map(str, words)],
        text=True,
        capture_output=True,
        timeout=300,
        env=environment,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def train(recipe, folder, *overrides):
    settings = [word for override in overrides for word in ("--set", override)]
    run("train", ROOT / "recipes" / "smoke" / f"{recipe}.toml", "--folder", folder, *settings)
    return folder


def evaluate(folder):
    return json.loads(run("eval", folder, "--json"))["metrics"]

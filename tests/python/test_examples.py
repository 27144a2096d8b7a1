"""The Python examples run and print what they promise."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(script, *arguments):
    environment = dict(os.environ, PYTHONPATH=str(ROOT / "python"), OMP_NUM_THREADS="1")
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / script, *arguments],
        env=environment,
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_swap_attention():
    printed = run("swap_attention.py")
    changes = re.findall(r"outputs changed by (\S+);", printed)
    assert len(changes) == 2 and all(float(change) < 1e-4 for change in changes), printed
    losses = [float(loss) for loss in re.findall(r"loss (\d+\.\d+)", printed)]
    trained, dot_product, talking_heads, light_conv = losses
    assert dot_product < trained and talking_heads < trained, printed


def test_attention_maps(tmp_path):
    pytest.importorskip("matplotlib")
    printed = run("attention_maps.py", tmp_path)
    found = re.findall(r"^(\w+) +loss (\d\.\d+), (\d+)% of", printed, re.MULTILINE)
    assert [name for name, *_ in found] == ["dot_product", "h_transformer", "talking_heads"]
    for name, loss, share in found:
        # Chance is a loss of log(10) = 2.3 and one token of twelve to eighteen.
        assert float(loss) < 0.5 and int(share) > 15, printed
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    mixes = (tmp_path / "head_mixes.svg").read_text("utf-8")
    assert mixes.count("<image") >= 4, "two mixes of two layers"

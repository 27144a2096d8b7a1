"""The Python examples run and print what they promise."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_swap_attention():
    environment = dict(os.environ, PYTHONPATH=str(ROOT / "python"), OMP_NUM_THREADS="1")
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "swap_attention.py"],
        env=environment,
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    changes = re.findall(r"outputs changed by (\S+);", done.stdout)
    assert len(changes) == 2 and all(float(change) < 1e-4 for change in changes), done.stdout
    losses = [float(loss) for loss in re.findall(r"loss (\d+\.\d+)", done.stdout)]
    trained, dot_product, talking_heads, light_conv = losses
    assert dot_product < trained and talking_heads < trained, done.stdout

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
for folder in ("python", "benchmarks"):
    sys.path.insert(0, str(ROOT / folder))


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """The tensors are tiny: threads would wait for each other most of the time."""
    import torch

    torch.set_num_threads(1)

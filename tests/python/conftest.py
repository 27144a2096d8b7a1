import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
for folder in ("python", "benchmarks"):
    sys.path.insert(0, str(ROOT / folder))


@pytest.fixture
def one_thread():
    """For models of a few thousand parameters, whose threads would wait for each other most of the time."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

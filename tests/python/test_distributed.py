"""DistributedDataParallel over Gloo."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

from distributed_worker import DISTANCES
from headloom import nn

WORKER = Path(__file__).with_name("distributed_worker.py")
RANKS = 2


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no Gloo")
def test_two_processes_have_the_gradients_of_one(tmp_path):
    command = [sys.executable, str(WORKER)]
    workers = [
        subprocess.Popen(
            [*command, str(rank), str(RANKS), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(RANKS)
    ]
    for rank, worker in enumerate(workers):
        printed, _ = worker.communicate(timeout=120)
        assert worker.returncode == 0, printed
        for name in [*nn.mixers(), *DISTANCES]:
            assert f"rank {rank}: {name}:" in printed

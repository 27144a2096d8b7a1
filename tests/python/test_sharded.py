"""h_attention over processes: Gloo ranks together equal one process, forward and backward."""

import pytest
import torch
import torch.multiprocessing

import headloom
from processes import leave

BLOCK, PART = 4, 16


def tensors(ranks):
    generator = torch.Generator().manual_seed(3)
    shape = (1, 2, ranks * PART, 3)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(4)]


def results(attend, q, k, v, grad):
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    out = attend(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad)]


def part_of(rank, path, ranks, causal):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{path}/store", rank=rank, world_size=ranks
    )
    mine = [x[:, :, rank * PART : (rank + 1) * PART] for x in tensors(ranks)]
    found = results(
        lambda q, k, v: headloom.ops.h_attention_sharded(q, k, v, block_size=BLOCK, causal=causal),
        *mine,
    )
    torch.save(found, f"{path}/{rank}.pt")
    leave()


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "causal"), [(2, False), (4, False), (4, True)])
def test_processes_together_equal_one(tmp_path, ranks, causal):
    torch.multiprocessing.spawn(part_of, (str(tmp_path), ranks, causal), nprocs=ranks)
    whole = results(
        lambda q, k, v: headloom.ops.h_attention(q, k, v, block_size=BLOCK, causal=causal),
        *tensors(ranks),
    )
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(ranks)]
    for index, exact in enumerate(whole):
        torch.testing.assert_close(torch.cat([part[index] for part in parts], 2), exact)

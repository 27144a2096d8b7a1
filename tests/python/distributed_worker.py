"""One of several processes that share a batch: gradients must be those of one process with all of it.

python distributed_worker.py RANK RANKS STORE
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python"))

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

from headloom import nn, ops  # noqa: E402
from processes import leave  # noqa: E402

ROWS, TIME, VOCABULARY = 4, 9, 11
DISTANCES = ("conditional_transport", "sinkhorn_divergence", "maximum_mean_discrepancy")


def gradients(model, tokens):
    logits = model(tokens[:, :-1])
    functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def make_model(name):
    torch.manual_seed(1)
    for causal in (True, False):
        try:
            config = nn.TransformerConfig(
                VOCABULARY, dim=8, heads=2, ffn=16, layers=2, causal=causal, mixer=name
            )
            return nn.LanguageModel(config).double()
        except ValueError:
            if not causal:
                raise


class Distance(torch.nn.Module):
    """A distance between two projections of a batch of points, averaged over samples and heads."""

    def __init__(self, name):
        super().__init__()
        torch.manual_seed(1)
        self.sets = 4 if name == "conditional_transport" else 2
        self.project = torch.nn.Linear(5, self.sets * 2 * 3)
        self.distance = getattr(ops, name)

    def forward(self, points):  # [B, T, 5]
        sets = self.project(points).unflatten(-1, (self.sets, 2, 3)).permute(2, 0, 3, 1, 4)
        return self.distance(*sets).mean()


def distance_gradients(model, points):
    model(points).backward()
    return {name: p.grad for name, p in model.named_parameters()}


def check(rank, name, expected, found):
    for key, grad in expected.items():
        torch.testing.assert_close(found[f"module.{key}"], grad)
    print(f"rank {rank}: {name}: {len(expected)} gradients are equal")


def main():
    rank, ranks, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    tokens = torch.randint(VOCABULARY, (ROWS, TIME), generator=torch.Generator().manual_seed(2))
    for name in nn.mixers():
        expected = gradients(make_model(name), tokens)
        shared = DistributedDataParallel(make_model(name))
        check(rank, name, expected, gradients(shared, tokens.chunk(ranks)[rank]))
    points = torch.randn(ROWS, TIME, 5, generator=torch.Generator().manual_seed(3)).double()
    for name in DISTANCES:
        expected = distance_gradients(Distance(name).double(), points)
        shared = DistributedDataParallel(Distance(name).double())
        check(rank, name, expected, distance_gradients(shared, points.chunk(ranks)[rank]))
    leave()


if __name__ == "__main__":
    main()

"""What the alignment objective adds to a training step of an encoder of BERT-base's shape.

Two of its twelve layers, for every layer costs the same: 768 wide, 12 heads, 3072 in the feed-forward
part. Forward, backward and AdamW; alternating, medians.
"""

import argparse
import statistics
import time

import torch
from torch import nn

import headloom


class Layer(nn.Module):
    def __init__(self, width=768, heads=12, hidden=3072):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.ffn_in, self.ffn_out = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, x):
        q, k, v = (
            project(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        x = self.norms[0](x + self.out(mixed.transpose(1, 2).flatten(2)))
        return self.norms[1](x + self.ffn_out(nn.functional.gelu(self.ffn_in(x))))


def step_of(model, objective, x):
    parameters = [*model.parameters(), *(objective.parameters() if objective else [])]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=True)

    def step():
        optimizer.zero_grad()
        loss = model(x).square().mean()
        if objective:
            loss = loss + objective.loss()
        loss.backward()
        optimizer.step()

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=1024, help="of a batch")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for length in arguments.lengths:
        steps = {}
        for form in [None, "conditional_transport", "adversarial"]:
            torch.manual_seed(1)
            model = nn.Sequential(Layer(), Layer())
            objective = headloom.alignment.attach(model, heads=12, form=form) if form else None
            x = torch.randn(arguments.tokens // length, length, 768)
            steps[form] = step_of(model, objective, x)
        samples = {form: [] for form in steps}
        for round_number in range(arguments.rounds + 1):
            for form, step in steps.items():
                start = time.perf_counter()
                step()
                if round_number:
                    samples[form].append(time.perf_counter() - start)
        plain = statistics.median(samples[None])
        for form, times in samples.items():
            seconds = statistics.median(times)
            print(
                f"N={length} {form or 'plain'}: {seconds * 1e3:.1f} ms, "
                f"{100 * (seconds / plain - 1):+.1f} %",
                flush=True,
            )


if __name__ == "__main__":
    main()

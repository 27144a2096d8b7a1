#!/usr/bin/env python3
"""Writes the README's table of mechanisms, the rows of docs/benchmarks.md and the training steps of
docs/performance/training.md from the stored speeds.

    .venv/bin/python scripts/readme_table.py           # rewrites what stands between the markers
    .venv/bin/python scripts/readme_table.py --check   # exit code 1 when it would

Speeds come from ``benchmarks/results/cpu.json``: the time of the fastest alternative that computes the
same over headloom's, the smallest and the largest among the stored rows. Alternatives run with allocator
settings that favour them (``--tier tuned``). Training steps come from ``benchmarks/results/training*.json``.
"""

import argparse
import collections
import json
import re
import sys
from pathlib import Path

import training_table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path("benchmarks/results/cpu.json")
TIER = "tuned"

# name, page, paper, CPU, CUDA, backward, decoding, {label: name in the benchmarks}
MECHANISMS = [
    (
        "`dot_product` (baseline)",
        "dot_product",
        "[Vaswani et al. 2017](https://arxiv.org/abs/1706.03762)",
        "fused",
        "query tiles in torch operations",
        "fused, twice",
        "key-value cache",
        {"": "dot_product"},
    ),
    (
        "`talking_heads`",
        "talking_heads",
        "[Shazeer et al. 2020](https://arxiv.org/abs/2003.02436)",
        "fused, O(N) memory",
        "query tiles in torch operations",
        "fused, twice",
        "key-value cache",
        {"": "talking_heads"},
    ),
    (
        "`h_transformer`",
        "h_transformer",
        "[Zhu and Soricut 2021](https://arxiv.org/abs/2107.11906)",
        "fused, one pass over all levels",
        "level by level in torch operations",
        "fused, twice",
        "2 R log2(T / R) rows",
        {"": "h_attention"},
    ),
    (
        "`symmetric`",
        "symmetric",
        "[Courtois et al. 2024](https://arxiv.org/abs/2406.06366)",
        "fused, half of the score tiles where scores are symmetric",
        "torch's SDPA, folded coefficients",
        "fused, twice",
        "key-value cache, or one tensor of inputs",
        {"": "symmetric"},
    ),
    (
        "alignment: `conditional_transport`, `sinkhorn_divergence`, `maximum_mean_discrepancy`",
        "alignment",
        "[Zhang et al. 2021](https://arxiv.org/abs/2110.12567)",
        "fused, no M x N array",
        "chunks of queries in torch operations",
        "fused, twice but for Sinkhorn",
        "not needed: a training objective",
        {
            "transport ": "conditional_transport",
            "Sinkhorn ": "sinkhorn_divergence",
            "discrepancy ": "maximum_mean_discrepancy",
        },
    ),
    (
        "`light_conv`",
        "light_conv",
        "[Wu et al. 2019](https://arxiv.org/abs/1901.10430)",
        "fused, one pass",
        "tiles of band matrices in torch operations",
        "fused, twice",
        "ring of K - 1 inputs",
        {"": "light_conv"},
    ),
    (
        "`dynamic_conv`",
        "dynamic_conv",
        "[Wu et al. 2019](https://arxiv.org/abs/1901.10430)",
        "fused, one pass",
        "tiles of band matrices in torch operations",
        "fused, twice",
        "ring of K - 1 inputs",
        {"": "dynamic_conv"},
    ),
]
PASSES = ("forward", "forward_backward")


def gain(row):
    return min(row["peers"].values()) / row["headloom_ms"]


def spread(rows):
    """ "2.1", "1.3 to 4.0", or a dash where nothing is stored."""
    if not rows:
        return "–"
    low, high = (f"{f(gain(row) for row in rows):.1f}" for f in (min, max))
    return low if low == high else f"{low} to {high}"


def speed(rows, benchmarks):
    parts = []
    for label, mechanism in benchmarks.items():
        own = [r for r in rows if r["mechanism"] == mechanism and r["tier"] == TIER and r["peers"]]
        both = [spread([r for r in own if r["pass"] == name]) for name in PASSES]
        parts.append(f"{label}{' / '.join(both)}")
    return ", ".join(parts)


def mechanisms_table(rows):
    lines = [
        "| mechanism | paper | CPU | CUDA | backward | decoding | speed: forward / both passes |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, page, *words, benchmarks in MECHANISMS:
        cells = [f"[{name}](docs/mechanisms/{page}.md)", *words, speed(rows, benchmarks)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def milliseconds(row):
    others = row["peers"] | row["rivals"]
    cells = [f"{name} {ms:.2f}" for name, ms in sorted(others.items(), key=lambda item: item[1])]
    return ", ".join(cells) + "".join(f"; no {name}" for name in row.get("left_out", {}))


def rows_table(stored):
    by_mechanism = collections.defaultdict(list)
    for row in stored["rows"]:
        if row["tier"] == TIER:
            by_mechanism[row["mechanism"]].append(row)
    lines = []
    for mechanism, rows in by_mechanism.items():
        lines += [f"## {mechanism}", ""]
        if (ROOT / "docs" / "images" / "scaling" / f"{mechanism}.svg").exists():
            lines += [
                f"![{mechanism}: time and memory over length](images/scaling/{mechanism}.svg)",
                "",
            ]
        lines += [
            "| case | type | pass | headloom ms | best alternative | extra MiB | theirs at least "
            "| others, ms |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in rows:
            least = min(row["peer_extra_bytes"].values(), default=0) / 2**20
            cells = [
                row["case"],
                row["dtype"],
                row["pass"].replace("_", " + "),
                f"{row['headloom_ms']:.2f}",
                f"{gain(row):.2f} times" if row["peers"] else "–",
                f"{row['extra_bytes'] / 2**20:.1f}",
                f"{least:.1f}" if row["peer_extra_bytes"] else "–",
                milliseconds(row),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        sources = sorted({(r["date"], r["torch"], r["threads"], r["command"]) for r in rows})
        for date, torch, threads, command in sources:
            lines += ["", f"{date}, torch {torch}, {threads} threads: `{command}`"]
        lines.append("")
    return f"Machine: {stored['machine']}.\n\n" + "\n".join(lines).rstrip()


def between(text, name, body):
    """The text with what stands between the markers of that name replaced."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(
            f"expected the markers <!-- {name} --> and <!-- end of {name} -->; found none"
        )
    return pattern.sub(lambda m: f"{m[1]}\n{body}\n\n{m[2]}", text)


def pages(root=ROOT):
    """{path: what it should hold}"""
    stored = json.loads((root / RESULTS).read_text(encoding="utf-8"))
    bodies = {
        "README.md": ("mechanisms", mechanisms_table(stored["rows"])),
        "docs/benchmarks.md": ("rows", rows_table(stored)),
        training_table.PAGE: ("training steps", training_table.tables(root)),
    }
    return {
        root / path: between((root / path).read_text(encoding="utf-8"), *body)
        for path, body in bodies.items()
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing, say what differs")
    check = parser.parse_args().check
    differing = [
        (path, text) for path, text in pages().items() if path.read_text(encoding="utf-8") != text
    ]
    for path, text in differing:
        print(
            f"{path.relative_to(ROOT)} {'differs from' if check else 'rewritten from'} what is stored"
        )
        if not check:
            path.write_text(text, encoding="utf-8")
    return 1 if check and differing else 0


if __name__ == "__main__":
    sys.exit(main())

"""The tables of training steps, from the rows of ``benchmarks/training.py``, one a machine."""

import json

RESULTS = "benchmarks/results"  # training.json, and training_<machine>.json of other machines
PAGE = "docs/performance/training.md"
HEADER = [
    "| recipe | mechanism | parameters | tokens a step | headloom ms | torch ms | torch / headloom | "
    "of the turns | form in torch |",
    "|---|---|---|---|---|---|---|---|---|",
]


def cells(row, mark):
    low, high = min(row["ratios"]), max(row["ratios"])
    return [
        f"{row['case']}{mark}",
        row["mechanism"],
        f"{row['parameters']:,}",
        f"{row['tokens_a_step']:,.0f}",
        f"{row['headloom_ms']:.1f}",
        f"{row['torch_ms']:.1f}",
        f"{row['ratio']:.2f}",
        f"{low:.2f} to {high:.2f}",
        row["form"],
    ]


def tables(root):
    files = sorted((root / RESULTS).glob("training*.json"))
    return "\n\n".join(table(json.loads(file.read_text(encoding="utf-8"))) for file in files)


def table(stored):
    """The rows of each tier of one machine, with what was made smaller below."""
    parts = [f"Machine: {stored['machine']}."]
    for tier in sorted({row["tier"] for row in stored["rows"]}, reverse=True):
        rows = [row for row in stored["rows"] if row["tier"] == tier]
        rows.sort(key=lambda row: (row["case"], row["mechanism"]))
        smaller = sorted({(row["case"], row["smaller"]) for row in rows if row["smaller"]})
        marks = {case: f" ({number})" for number, (case, _) in enumerate(smaller, 1)}
        lines = [*HEADER]
        lines += [f"| {' | '.join(cells(row, marks.get(row['case'], '')))} |" for row in rows]
        parts += [f"Allocator of torch: {tier}.", "\n".join(lines)]
        parts += [f"({number}) {words}." for number, (_, words) in enumerate(smaller, 1)]
        sources = {
            (
                row["date"],
                row["torch"],
                ", ".join(
                    map(str, sorted({r["threads"] for r in rows if r["command"] == row["command"]}))
                ),
                row["command"],
            )
            for row in rows
        }
        parts += [
            f"{date}, torch {torch}, threads: {threads}: `{command}`"
            for date, torch, threads, command in sorted(sources)
        ]
    return "\n\n".join(parts)

#!/usr/bin/env python3
"""Draws time and memory over length, one SVG a mechanism, from stored rows of ``compare.py --scaling``.

    .venv/bin/python benchmarks/plot.py benchmarks/results/cpu.json --folder docs/images/scaling

Neither torch nor headloom is needed. Colours and text are of a brightness that reads on white and on black.
"""

import argparse
import collections
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import stored  # noqa: E402
from svg_style import COLOURS, save, subplots  # noqa: E402

FEWEST = 3  # lengths of a series worth a line


def series_of(rows):
    """{mechanism: rows of its longest series in float32}, by length, forward and backward."""
    found = collections.defaultdict(dict)
    for row in rows:
        if row["length"] and row["dtype"] == "float32" and row["pass"] == "forward_backward":
            key = (row["series"], row["tier"], row["threads"])
            found[row["mechanism"]].setdefault(key, {})[row["length"]] = row
    longest = {name: max(series.values(), key=len) for name, series in found.items()}
    return {
        name: [series[length] for length in sorted(series)]
        for name, series in longest.items()
        if len(series) >= FEWEST
    }


def lines_of(rows):
    """{function: [(length, milliseconds, extra bytes)]}, headloom first."""
    lines = {"headloom": [(r["length"], r["headloom_ms"], r["extra_bytes"]) for r in rows]}
    for row in rows:
        for name, ms in (row["peers"] | row["rivals"]).items():
            point = (row["length"], ms, row["peer_extra_bytes"][name])
            lines.setdefault(name, []).append(point)
    return lines


def draw(mechanism, rows, file):
    figure, (time, memory) = subplots(1, 2, figsize=(8.6, 3.4))
    for index, (name, points) in enumerate(lines_of(rows).items()):
        lengths, milliseconds, held = zip(*points, strict=True)
        style = {
            "color": COLOURS[index % len(COLOURS)],
            "linewidth": 2.4 if index == 0 else 1.2,
            "linestyle": "--" if name in rows[0]["rivals"] else "-",
            "marker": "o",
            "markersize": 3.5,
        }
        time.plot(lengths, milliseconds, label=name, **style)
        memory.plot(lengths, [max(b, 1) / 2**20 for b in held], **style)
    for axes, title in ((time, "milliseconds"), (memory, "extra MiB at the peak")):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("length")
        axes.set_title(title)
        axes.set_xticks([r["length"] for r in rows], [str(r["length"]) for r in rows])
        axes.grid(alpha=0.25)
    figure.suptitle(f"{mechanism}, forward and backward, {rows[0]['series']}, float32", fontsize=10)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    save(figure, file)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=Path, help="a file that compare.py --json wrote")
    parser.add_argument("--folder", type=Path, required=True, help="where to write the pictures")
    arguments = parser.parse_args()
    held = stored.read(arguments.rows)
    if held is None:
        parser.error(f"expected a file of rows; found none at {arguments.rows}")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for mechanism, rows in series_of(held["rows"]).items():
        draw(mechanism, rows, arguments.folder / f"{mechanism}.svg")
        print(arguments.folder / f"{mechanism}.svg")


if __name__ == "__main__":
    main()

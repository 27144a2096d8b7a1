#!/usr/bin/env python3
"""Time to encode a text file: `headloom data encode` beside the tokenizers package, one thread each.

Usage: tokenizers_pace.py TEXT. The command is timed whole: start, reading the tokenizer and the
text, writing the ids. The package is timed inside Python, on lines that are read already and with a
tokenizer that is loaded already; of its two ways of encoding many lines the faster one counts.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
import tokenizers  # noqa: E402

COMMAND = Path(__file__).resolve().parents[1] / "build" / "headloom"
ROUNDS = 5


def seconds(action):
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def command(*arguments, **streams):
    subprocess.run([COMMAND, "data", *map(str, arguments)], check=True, **streams)


def pace(text, algorithm, folder):
    path = folder / f"{algorithm}.json"
    learn = ["tokenizer", "--algorithm", algorithm, "--size", 8000, "--input", text]
    learning = seconds(lambda: command(*learn, "--output", path, stdout=subprocess.DEVNULL))
    lines = [line.rstrip("\n") for line in text.open(encoding="utf-8", newline="\n")]
    package = tokenizers.Tokenizer.from_file(str(path))

    def ours():
        with text.open("rb") as source, (folder / "ids").open("wb") as ids:
            command("encode", "--tokenizer", path, stdin=source, stdout=ids)

    times = {"headloom": [], "package": []}
    for _ in range(ROUNDS):
        times["headloom"].append(seconds(ours))
        ways = (package.encode_batch, package.encode_batch_fast)
        times["package"].append(
            min(seconds(lambda way=way: way(lines, add_special_tokens=False)) for way in ways)
        )
    size = text.stat().st_size / 1e6
    found = [[int(word) for word in row.split()] for row in (folder / "ids").open()]
    expected = [e.ids for e in package.encode_batch(lines, add_special_tokens=False)]
    if found != expected:
        sys.exit(f"{algorithm}: the ids differ, so their times say nothing")
    print(f"{algorithm}: {size:.1f} MB, learned in {learning:.2f} s, equal ids")
    for name, values in times.items():
        middle = statistics.median(values)
        print(
            f"  {name}: {middle:.3f} s ({min(values):.3f} to {max(values):.3f}), {size / middle:.1f} MB/s"
        )


def main():
    text = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        for algorithm in ("bpe", "wordpiece"):
            pace(text, algorithm, Path(folder))


if __name__ == "__main__":
    main()

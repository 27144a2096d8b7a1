#!/usr/bin/env python3
"""Measures headloom's operators against what a user would pick instead.

    PYTHONPATH=python .venv/bin/python benchmarks/compare.py --mechanism dot_product --quick --json x.json

and adds the rows to a file (``stored.py``), from which ``plot.py`` and ``scripts/readme_table.py`` read.

Everything of a row runs in one process, alternating; times are medians. Rows whose outputs or gradients
disagree are refused, and the exit code is then 1. ``--tier tuned`` starts the process again with the
allocator settings that favour torch's compositions most: freed memory is kept instead of being returned
and faulted in again, and large tensors lie in huge pages. ``--case``, ``--dtype`` and ``--pass`` choose rows,
so that a long list can be measured piece by piece. ``--scaling`` measures one size of each mechanism at many
lengths instead.
"""

import argparse
import datetime
import itertools
import os
import platform
import re
import shlex
import sys
from pathlib import Path

TUNED = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    "THP_MEM_ALLOC_ENABLE": "1",
}
# Some environments pin OpenBLAS to another processor's kernels; no tier keeps that.
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
# The profiler that counts memory would print two lines a measurement.
QUIET = {"KINETO_LOG_LEVEL": "99"}


def restart_in_tier(tier):
    """The allocator reads its settings when a process starts."""
    wanted = {key: value for key, value in os.environ.items() if key not in UNSET} | QUIET
    for key, value in TUNED.items():
        if tier == "tuned":
            wanted[key] = value
        else:
            wanted.pop(key, None)
    if wanted != dict(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.argv], wanted)


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mechanism", required=True, help="a name, several with commas, or all")
    parser.add_argument("--quick", action="store_true", help="one small case, short timings")
    parser.add_argument("--scaling", action="store_true", help="one size at many lengths")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--tier", choices=["shipped", "tuned"], default="shipped")
    parser.add_argument(
        "--no-compile",
        action="store_true",
        help="leave out torch.compile, and FlexAttention, which needs it",
    )
    parser.add_argument("--case", type=re.compile, help="only cases whose name has this pattern")
    parser.add_argument("--dtype", help="only this one, e.g. float32")
    parser.add_argument("--pass", dest="passes", help="forward or forward_backward only")
    parser.add_argument("--seconds", type=float, default=1.5, help="of timing a row and function")
    parser.add_argument("--json", type=Path, help="a file of rows to add to")
    return parser.parse_args()


def machine():
    return f"{processor()}, {os.cpu_count()} processors"


def processor():
    """Its name and family: virtual machines call generations alike, "AMD EPYC", whose peaks differ by two."""
    found = {}
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    name = found.get("model name", platform.processor())
    return f"{name} (family {found['cpu family']})" if "cpu family" in found else name


def print_row(row):
    peers = ", ".join(f"{name} {ms:.3f}" for name, ms in (row["peers"] | row["rivals"]).items())
    best = min(row["peers"].values(), default=float("nan"))
    print(
        f"{row['mechanism']:13} {row['case']:26} {row['dtype']:9} {row['pass']:17}"
        f"{row['headloom_ms']:10.3f} ms  best peer / headloom {best / row['headloom_ms']:6.2f}  "
        f"floor {row['floor_ms']:.3f}  of peak {row['of_peak']:4.0%}  of copy {row['of_copy']:4.0%}  "
        f"extra {row['extra_bytes'] / 2**20:.2f} MiB = {row['extra_bytes'] / row['input_bytes']:.2f} inputs  "
        f"[{peers}]",
        flush=True,
    )


def wanted(arguments, names):
    """The cases, types and passes that the arguments choose."""
    from cases import load

    for name in names:
        for case in load(name, arguments.scaling):
            if arguments.quick and not (case.quick or arguments.scaling):
                continue
            if arguments.case and not arguments.case.search(case.name):
                continue
            if arguments.no_compile:
                case.compiled = case.flex = None
            for dtype, pass_name in itertools.product(case.dtypes, case.passes):
                if arguments.dtype not in (None, str(dtype).removeprefix("torch.")):
                    continue
                if arguments.passes in (None, pass_name):
                    yield case, dtype, pass_name


def measure_all(arguments, names):
    """Rows, and what was refused: each with where it comes from."""
    import torch

    import headloom
    from harness import Disagreement, machine_limits, measure

    limits = machine_limits(arguments.threads)
    rounds, seconds = (3, 0.15) if arguments.quick else (11, arguments.seconds)
    source = {
        "tier": arguments.tier,
        "threads": arguments.threads,
        "torch": torch.__version__,
        "headloom": headloom.__version__,
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["benchmarks/compare.py", *sys.argv[1:]]),
        "limits": limits,
    }
    rows, refused = [], []
    for case, dtype, pass_name in wanted(arguments, names):
        try:
            rows.append(measure(case, dtype, pass_name, limits, rounds, seconds) | source)
            print_row(rows[-1])
        except Disagreement as problem:
            what = {"mechanism": case.mechanism, "case": case.name, "pass": pass_name}
            refused.append({**what, "dtype": str(dtype).removeprefix("torch."), **source})
            print(f"refused: {problem}", file=sys.stderr)
    return rows, refused


def main():
    arguments = parse()
    restart_in_tier(arguments.tier)
    import torch

    import stored
    from cases import MECHANISMS

    names = MECHANISMS if arguments.mechanism == "all" else arguments.mechanism.split(",")
    unknown = [name for name in names if name not in MECHANISMS]
    if unknown:
        print(
            f"compare.py: expected mechanisms among {MECHANISMS}; found {unknown}", file=sys.stderr
        )
        return 2
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    # A peer that torch.compile gives up on would be timed uncompiled.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    rows, refused = measure_all(arguments, names)
    if arguments.json:
        stored.merge(arguments.json, machine(), rows, refused)
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""A training step of each recipe: `headloom train` beside the same model in torch.nn and Python.

    PYTHONPATH=python .venv/bin/python benchmarks/training.py --check --data DATA
    PYTHONPATH=python .venv/bin/python benchmarks/training.py --tier tuned --data DATA \\
        --json benchmarks/results/training.json

Both sides start from the same weights and take the same batches in the same order; steps are whole:
batch, forward pass, loss, backward pass, clipping, optimizer, average of the weights where the recipe has
one. headloom's is the command that users run; it is stopped while torch's turn is on. A row's ratio is
the median over the turns of torch's time over headloom's for the same steps. Of the usual ways to write a
mechanism in torch, the fastest in a few steps is measured.

--check trains three steps without dropout on both sides and compares losses, norms of the gradient and
numbers of parameters; a row is measured only after it has passed in the same --work folder.

DATA has the folders cora, imdb, mrpc, multi30k, rte, sst2, tiny_shakespeare and wikitext-2
(``training_rows.py``); without --data, recipes look where they say themselves.
"""

import argparse
import datetime
import hashlib
import os
import re
import shlex
import shutil
import statistics
import sys
import time
from pathlib import Path

import tomllib

from compare import TUNED, machine, restart_in_tier
from trainer_run import COMMAND, START, TrainerRun, write_start
from training_rows import ROWS, data_settings

ROOT = Path(__file__).resolve().parents[1]
NO_DROPOUT = ("model.dropout=0", "model.mixing_dropout=0", "model.ffn_dropout=0")
CHECKED_STEPS = 3
# Batches for the check, where two sequences are not what is said here.
SMALL = {"multi30k": ("task.max_tokens=512",), "lra_retrieval": ("train.batch_size=1",)}
# Shares of the value. Sums of float32 in another order; three updates later, Adam has divided small
# gradients by themselves.
LOSS_AGREES, NORM_AGREES = 2e-4, 2e-3
TRIED_STEPS = 3  # of each form; 1 where it takes this many seconds
LONG_STEP = 1.0
# Of the first losses with dropout, whose masks differ: of a few sequences and two classes, far apart.
FIRST_LOSS_AGREES = 0.4
# Share of the processors that others may use while a row is measured.
QUIET = 0.1


class Disagreement(Exception):
    pass


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--row", type=re.compile, help="rows whose 'recipe mechanism' match")
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    parser.add_argument("--check", action="store_true", help="compare, and measure nothing")
    parser.add_argument("--data", type=Path, help="folder of the recipes' data")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "training")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--tier", choices=["shipped", "tuned"], default="shipped")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.6, help="of a turn, at least")
    parser.add_argument("--json", type=Path, help="a file of rows to add to")
    return parser.parse_args()


def threads_of(row, threads):
    """A recipe may state its own."""
    recipe = tomllib.loads(row.recipe.read_text(encoding="utf-8"))
    return recipe["train"].get("threads", threads)


class Place:
    """The files of a row under the work folder."""

    def __init__(self, row, arguments):
        self.row = row
        self.folder = arguments.work / row.name.replace(" ", "_")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.threads = threads_of(row, arguments.threads)
        self.settings = (
            f"train.threads={self.threads}",
            *row.mixer_settings(),
            *data_settings(row.recipe.stem, arguments.data, self.folder),
            *row.settings,
        )

    def key(self):
        """Changes with what the row is made of."""
        folder = ROOT / "benchmarks"
        sources = sorted([*folder.glob("torch_models/*.py"), *folder.glob("cases/*.py")])
        texts = [path.read_bytes() for path in [*sources, self.row.recipe]]
        built = [str(os.stat(path).st_mtime_ns).encode() for path in (COMMAND, START)]
        made = repr((self.settings, self.row.batches)).encode()
        return hashlib.sha256(b"\0".join([*texts, *built, made])).hexdigest()

    def start(self, settings=(), count=None):
        """Weights by headloom's names, and the batches."""
        from safetensors.torch import load_file

        made, path = self.folder / "start.key", self.folder / "start.safetensors"
        settings, count = (*self.settings, *settings), count or self.row.batches
        key = repr((settings, count, os.stat(START).st_mtime_ns))
        if not (made.exists() and path.exists() and made.read_text() == key):
            made.unlink(missing_ok=True)
            write_start(self.row.recipe, settings, count, path)
            made.write_text(key)
        tensors = load_file(path)
        weights = {
            name.removeprefix("model."): tensor
            for name, tensor in tensors.items()
            if name.startswith("model.")
        }
        return weights, tensors

    def run(self, settings=()):
        folder = self.folder / "run"
        shutil.rmtree(folder, ignore_errors=True)
        environment = {key: value for key, value in os.environ.items() if key not in TUNED}
        settings = (*self.settings, *settings)
        return TrainerRun(self.row.recipe, folder, settings, environment)

    def recipe(self):
        """As the run has resolved it."""
        path = self.folder / "run" / "recipe.toml"
        return tomllib.loads(path.read_text(encoding="utf-8"))


def batches_of(recipe, tensors):
    from torch_models.trainer import Batches

    pictures = recipe["task"]["name"] in ("image", "pathfinder")
    mask_zeros = pictures and recipe["task"].get("mask_zeros", True)
    return Batches(tensors, mask_zeros, recipe["model"]["segments"] > 0)


def trainers_of(recipe, weights, tensors):
    """{name of the form: trainer}, each with weights of its own."""
    from torch_models.tasks import forms
    from torch_models.trainer import Trainer

    batches = batches_of(recipe, tensors)
    return {
        " + ".join(filter(None, form)): Trainer(recipe, weights, batches, form)
        for form in forms(recipe)
    }


def require_close(what, ours, theirs, share):
    if not abs(ours - theirs) <= share * max(abs(ours), abs(theirs)):
        raise Disagreement(f"{what}: headloom has {ours:.8g}, torch {theirs:.8g}")


def gradient_norm(trainer):
    """Of the first batch, before an update."""
    import torch

    trainer.model.loss(trainer.batches[0]).backward()
    gradients = [p.grad for p in trainer.parameters if p.grad is not None]
    norm = float(torch.nn.utils.get_total_norm(gradients))
    trainer.optimizer.zero_grad()
    return norm


def check(place):
    """Raises Disagreement unless every form computes what headloom does. Returns the parameters."""
    import torch

    torch.set_num_threads(place.threads)
    small = SMALL.get(place.row.recipe.stem, ("train.batch_size=2",))
    with place.run((*NO_DROPOUT, *small)) as run:
        run.turn(0.0, CHECKED_STEPS)
        recipe, (weights, tensors) = place.recipe(), place.start(small, CHECKED_STEPS)
        for form, trainer in trainers_of(recipe, weights, tensors).items():
            where = f"{place.row.name}, {form}"
            if trainer.count_parameters() != run.parameters:
                raise Disagreement(
                    f"{where}: headloom has {run.parameters} parameters, torch "
                    f"{trainer.count_parameters()}"
                )
            norm = gradient_norm(trainer)
            require_close(f"{where}, norm of the gradient", run.grad_norms[0], norm, NORM_AGREES)
            for step in range(CHECKED_STEPS):
                what = f"{where}, loss of step {step + 1}"
                require_close(what, run.losses[step], trainer.step(), LOSS_AGREES)
        return run.parameters


def ensure_checked(place):
    stamp = place.folder / "checked"
    key = place.key()
    if not (stamp.exists() and stamp.read_text() == key):
        check(place)
        stamp.write_text(key)


def timed_steps(trainer, count):
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        trainer.step()
        seconds.append(time.perf_counter() - start)
    return seconds


def fastest(trainers):
    """(name, {name: milliseconds of a step}); each form takes the same few steps twice."""
    best, count = {}, None
    for _ in range(2):
        for name, trainer in trainers.items():
            trainer.done = 0
            took = timed_steps(trainer, 1)
            count = count or (TRIED_STEPS if took[0] < LONG_STEP else 1)
            took += timed_steps(trainer, count - 1)
            best[name] = [min(pair) for pair in zip(best.get(name, took), took, strict=True)]
    means = {name: sum(seconds) / count * 1e3 for name, seconds in best.items()}
    return min(means, key=means.get), means


def used_seconds(pid):
    """Processor time of a process so far, its threads' together."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Others:
    """How much of the processors neither side used, and somebody else did: a share of them all."""

    def __init__(self, *pids):
        self.pids = pids
        self.begun, self.before = time.perf_counter(), self._used()

    def _used(self):
        lines = Path("/proc/stat").read_text(encoding="utf-8").splitlines()
        user, nice, system, _, _, irq, softirq, steal = map(int, lines[0].split()[1:9])
        busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        return busy - sum(map(used_seconds, self.pids))

    def share(self):
        elapsed = time.perf_counter() - self.begun
        return max(0.0, self._used() - self.before) / (elapsed * os.cpu_count())


def measure(place, turns, seconds):
    import torch

    from torch_models.tasks import forms
    from torch_models.trainer import Trainer

    row = place.row
    torch.set_num_threads(place.threads)
    torch.manual_seed(1)
    with place.run() as run:
        first = len(run.turn(0.0))
        recipe, (weights, tensors) = place.recipe(), place.start()
        form, tried = fastest(trainers_of(recipe, weights, tensors))
        chosen = {" + ".join(filter(None, each)): each for each in forms(recipe)}[form]
        trainer = Trainer(recipe, weights, batches_of(recipe, tensors), chosen)
        if trainer.count_parameters() != run.parameters:
            raise Disagreement(f"{row.name}: another number of parameters")
        require_close(f"{row.name}, first loss", run.losses[0], trainer.step(), FIRST_LOSS_AGREES)
        timed_steps(trainer, first - 1)
        pairs, others = [], Others(os.getpid(), run.process.pid)
        for _ in range(turns):
            ours = run.turn(seconds)
            pairs.append((ours, timed_steps(trainer, len(ours))))
        disturbed = others.share()
        tokens = run.tokens / len(run.losses)
    ratios = [sum(theirs) / sum(ours) for ours, theirs in pairs]
    steps = sum(len(ours) for ours, _ in pairs)
    return {
        "mechanism": row.mechanism,
        "case": row.recipe.stem,
        "dtype": "float32",
        "pass": "training step",
        "threads": place.threads,
        "headloom_ms": sum(sum(ours) for ours, _ in pairs) / steps * 1e3,
        "torch_ms": sum(sum(theirs) for _, theirs in pairs) / steps * 1e3,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "steps": steps,
        "tokens_a_step": tokens,
        "parameters": run.parameters,
        "form": form,
        "forms_ms": tried,
        "smaller": row.smaller,
        "others": disturbed,
    }


def print_row(row):
    forms = ", ".join(f"{name} {ms:.2f}" for name, ms in row["forms_ms"].items())
    print(
        f"{row['case']:20} {row['mechanism']:17} headloom {row['headloom_ms']:9.2f} ms  torch "
        f"{row['torch_ms']:9.2f} ms  ratio {row['ratio']:5.2f} ({min(row['ratios']):.2f} to "
        f"{max(row['ratios']):.2f})  {row['steps']} steps  others {row['others']:.0%}  "
        f"[{forms}]",
        flush=True,
    )


def run_rows(arguments, rows):
    """How many rows disagreed, or were disturbed."""
    import torch

    import stored

    source = {
        "tier": arguments.tier,
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(
            ["benchmarks/training.py", "--data", "DATA", "--tier", arguments.tier]
            + ["--threads", str(arguments.threads), "--turns", str(arguments.turns)]
            + ["--seconds", str(arguments.seconds)]
        ),
    }
    refused = 0
    for row in rows:
        place = Place(row, arguments)
        try:
            ensure_checked(place)
            if arguments.check:
                print(f"{row.name}: the same on both sides", flush=True)
                continue
            measured = measure(place, arguments.turns, arguments.seconds) | source
        except Disagreement as problem:
            refused += 1
            print(f"refused: {problem}", file=sys.stderr)
            continue
        print_row(measured)
        if measured["others"] > QUIET:
            refused += 1
            print(
                f"not stored: {row.name}: expected a machine that does nothing else; found others on "
                f"{measured['others']:.0%} of the processors",
                file=sys.stderr,
            )
        elif arguments.json:
            stored.merge(arguments.json, machine(), [measured])
    return refused


def main():
    arguments = parse()
    rows = [row for row in ROWS if not arguments.row or arguments.row.search(row.name)]
    if arguments.list:
        print("\n".join(row.name for row in rows))
        return 0
    restart_in_tier(arguments.tier)
    return 1 if run_rows(arguments, rows) else 0


if __name__ == "__main__":
    sys.exit(main())

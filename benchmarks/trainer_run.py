"""``headloom train`` beside something else on the same cores: it runs in turns, and is stopped between
them."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMAND = ROOT / "build" / "headloom"
START = ROOT / "build" / "training_start"

# Nothing but steps, each with a line in the metrics. The data ends no run of a benchmark.
STEPS_ONLY = (
    "train.steps=1000000",
    "train.log_every=1",
    "train.validate_every=1000000",
    "train.checkpoint_every=1000000",
)
POLL = 0.005  # seconds


class RunError(RuntimeError):
    pass


def words_of(settings):
    return [word for setting in settings for word in ("--set", setting)]


def write_start(recipe, settings, count, output):
    """The first weights and ``count`` batches of a run, as a safetensors file."""
    command = [str(START), str(recipe), str(output), str(count), *settings]
    done = subprocess.run(command, text=True, capture_output=True)
    if done.returncode:
        raise RunError(f"{START.name}: {done.stderr.strip()}")


class TrainerRun:
    """The process of a run, stopped but for :meth:`turn`.

    The seconds of a step are those that the trainer states; where the process was stopped in the middle of
    one, the pause is taken off.
    """

    def __init__(self, recipe, folder, settings, environment=None):
        self.folder, self.seen, self.parameters, self.losses = Path(folder), 0, 0, []
        self.grad_norms = []
        self.tail, self.tokens = b"", 0
        self.pause, self.lines_since_pause, self.stopped_at = 0.0, 0, None
        metrics = self.folder / "metrics.jsonl"
        if metrics.exists():
            raise RunError(f"{folder}: expected a folder without a run; found metrics.jsonl")
        command = [str(COMMAND), "train", str(recipe), "--folder", str(folder), "--quiet"]
        self.process = subprocess.Popen(
            [*command, *words_of((*STEPS_ONLY, *settings))],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
        )
        self.metrics = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()
        if self.metrics:
            self.metrics.close()

    def _alive(self):
        if self.process.poll() is not None:
            said = self.process.stderr.read().decode(errors="replace").strip()
            raise RunError(f"headloom train ended with {self.process.returncode}: {said}")

    def _new_steps(self):
        """Seconds of each step that the metrics tell of since the last call."""
        if self.metrics is None:
            path = self.folder / "metrics.jsonl"
            if not path.exists():
                return []
            self.metrics = path.open("rb")
        *lines, self.tail = (self.tail + self.metrics.read()).split(b"\n")
        seconds = []
        for line in map(json.loads, lines):
            if line["event"] == "start":
                self.parameters = line["parameters"]
            elif line["event"] == "train":
                took = (line["tokens"] - self.tokens) / line["tokens_per_second"]
                seconds.append(self._without_pause(took))
                self.tokens = line["tokens"]
                self.losses.append(line["loss"])
                self.grad_norms.append(line["grad_norm"])
        return seconds

    def _without_pause(self, took):
        """A pause lies in the step that it is long enough for: the one whose line comes next, or, when that
        was over and not yet written, the one after it; or between two."""
        pause, self.lines_since_pause = self.pause, self.lines_since_pause + 1
        if took < pause and self.lines_since_pause == 1:
            return took
        self.pause = 0.0
        return took - pause if took >= pause else took

    def _stop(self):
        os.kill(self.process.pid, signal.SIGSTOP)
        _, status = os.waitpid(self.process.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            self.process.returncode = os.waitstatus_to_exitcode(status)
            self._alive()
        self.stopped_at = time.perf_counter()

    def _go_on(self):
        if self.stopped_at is not None:
            self.pause = time.perf_counter() - self.stopped_at
            self.stopped_at, self.lines_since_pause = None, 0
            os.kill(self.process.pid, signal.SIGCONT)

    def turn(self, seconds, steps=1):
        """Lets the run go on for that long and at least that many steps; returns the seconds of each."""
        self._go_on()
        begun, found = time.perf_counter(), []
        while len(found) < steps or time.perf_counter() - begun < seconds:
            time.sleep(POLL)
            self._alive()
            found += self._new_steps()
        self._stop()
        return found + self._new_steps()

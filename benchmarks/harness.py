"""Measures implementations of one thing against each other, in one process and alternating.

A case names a size and gives its inputs, headloom's function, the peers' functions, and the operations
and bytes that the mathematics needs. A row is refused when the outputs or gradients disagree.
"""

import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

# Largest accepted difference from the float64 result, as a share of its largest magnitude.
AGREEMENT = {torch.float32: 1e-4, torch.bfloat16: 4e-2, torch.float16: 1e-2, torch.float64: 1e-10}


@dataclass
class Case:
    """One size of one mechanism.

    ``inputs`` makes the differentiable tensors in float64; every function takes them in that order and
    returns one tensor. ``forward_flops`` counts a multiply-add as two; a backward pass counts double.
    """

    mechanism: str
    name: str
    inputs: Callable[[], list[torch.Tensor]]
    headloom: Callable
    peers: dict[str, Callable]
    forward_flops: float
    quick: bool = False
    compiled: str | None = None  # the peer that torch.compile gets
    # The same with FlexAttention, which torch.compile makes. On the processor it has no backward pass.
    flex: Callable | None = None
    # What a user might pick instead though it computes something else: a function, or a function and what
    # makes its own inputs. Timed, not compared, and not among the peers.
    rivals: dict[str, Callable | tuple[Callable, Callable]] = field(default_factory=dict)
    # What is run in float64 for the comparison; the first peer by default.
    truth: Callable | None = None
    # The part of the inputs on which agreement is checked: float64 peers are slow.
    part: Callable = lambda tensors: tensors
    dtypes: list[torch.dtype] = field(default_factory=lambda: [torch.float32])
    passes: tuple[str, ...] = ("forward", "forward_backward")
    length: int | None = None  # stands in the name, as T512 or N512

    def series(self):
        """The name without the length: what cases of different lengths have in common."""
        return re.sub(rf" [TN]{self.length}\b", "", self.name) if self.length else self.name


class Disagreement(Exception):
    pass


def run_forward(function, inputs, _):
    with torch.no_grad():
        return [function(*inputs)]


def run_forward_backward(function, inputs, grad):
    output = function(*inputs)
    return [output, *torch.autograd.grad(output, inputs, grad)]


PASSES = {"forward": run_forward, "forward_backward": run_forward_backward}


# How often slower than the fastest a function must be to be timed once only.
FAR_BEHIND = 10
# Seconds after which no further round begins, when there have been three.
LONG_ENOUGH = 40


def time_alternating(calls, rounds, seconds):
    """Median milliseconds of each call; rounds go through all of them in turn."""
    once = {}
    for name, call in calls.items():
        # The faster of two: where the machine stalls for a moment, nothing is far behind.
        tried = []
        for _ in range(2):
            start = time.perf_counter()
            call()
            tried.append(time.perf_counter() - start)
        once[name] = max(min(tried), 1e-7)
    samples = {name: [value * 1e3] for name, value in once.items()}
    bound = FAR_BEHIND * sorted(once.values())[min(1, len(once) - 1)]
    timed = {name: call for name, call in calls.items() if once[name] <= bound}
    for name in timed:
        samples[name] = []
    begun = time.perf_counter()
    for finished in range(rounds):
        if finished >= 3 and time.perf_counter() - begun > LONG_ENOUGH:
            break
        for name, call in timed.items():
            repeats = max(1, int(seconds / rounds / once[name]))
            start = time.perf_counter()
            for _ in range(repeats):
                call()
            samples[name].append((time.perf_counter() - start) / repeats * 1e3)
    return {name: statistics.median(values) for name, values in samples.items()}


# Beyond this many bytes a copy's time is proportional to them, and a longer one only takes memory.
LONGEST_COPY = 1 << 30


def copy_ms(moved):
    """Median milliseconds of a copy that reads and writes `moved` bytes together, to memory that is
    there already."""
    if moved > LONGEST_COPY:
        return copy_ms(LONGEST_COPY) * moved / LONGEST_COPY
    source = torch.ones(max(1, int(moved) // 8))
    target = torch.zeros_like(source)
    repeats = min(1000, max(1, (1 << 28) // int(moved + 1)))
    times = []
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(repeats):
            target.copy_(source)
        times.append((time.perf_counter() - start) / repeats * 1e3)
    return statistics.median(times)


def extra_bytes(call):
    """Peak of what torch allocates during a call, its results left out."""
    call()
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        results = call()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return max(0, peak - sum(r.numel() * r.element_size() for r in results))


def machine_limits(threads):
    """Multiply-add peak in GFLOP/s and copy bandwidth in GB/s, measured now."""
    gflops = torch.ops.headloom.fma_peak_gflops(threads, 0.3)
    x = torch.randn(1 << 25)
    y = torch.empty_like(x)
    y.copy_(x)
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        y.copy_(x)
        seconds.append(time.perf_counter() - start)
    return {"gflops": gflops, "gb_per_s": 2 * 4 * x.numel() / statistics.median(seconds) / 1e9}


def check_agreement(name, found, exact, dtype):
    for index, (result, truth) in enumerate(zip(found, exact, strict=True)):
        scale = truth.abs().max().item() if truth.numel() else 0.0
        error = (result.double() - truth).abs().max().item() if truth.numel() else 0.0
        if not error <= AGREEMENT[dtype] * max(scale, 1e-30):
            what = "output" if index == 0 else f"gradient {index - 1}"
            raise Disagreement(
                f"{name}: {what} is off by {error:.3g} where the largest value is {scale:.3g}"
            )


def check_functions(case, functions, inputs, dtype, run):
    """The float64 truth starts from the rounded inputs: what is compared is arithmetic, not
    rounding."""
    part = [t.detach().clone().requires_grad_() for t in case.part(inputs)]
    rounded = [t.detach().double().requires_grad_() for t in part]
    truth = case.truth or next(iter(case.peers.values()))
    with torch.no_grad():
        grad = torch.randn_like(truth(*rounded)).to(dtype)
    exact = run(truth, rounded, grad.double())
    for name, function in functions.items():
        found = run(function, part, grad)
        check_agreement(f"{case.mechanism} {case.name} {name}", found, exact, dtype)


def functions_of(case, pass_name):
    """What is measured and compared, by name; and which peers were left out, with the reason."""
    # torch.compile gives a function up to eight versions, and then runs it uncompiled: each row starts
    # from none.
    torch.compiler.reset()
    functions, left_out = {"headloom": case.headloom, **case.peers}, {}
    if case.compiled:
        functions["compile"] = torch.compile(case.peers[case.compiled], dynamic=False)
    if case.flex and pass_name == "forward":
        compiled = torch.compile(case.flex, dynamic=False)
        functions["flex"] = lambda *inputs: compiled(*(t.detach() for t in inputs))
    elif case.flex:
        left_out["flex"] = "FlexAttention has no backward pass on the processor"
    return functions, left_out


def measure(case, dtype, pass_name, limits, rounds, seconds):
    """One row, or Disagreement."""
    run = PASSES[pass_name]
    inputs = [t.detach().to(dtype).requires_grad_() for t in case.inputs()]
    functions, left_out = functions_of(case, pass_name)
    check_functions(case, functions, inputs, dtype, run)
    with torch.no_grad():
        grad = torch.randn_like(case.headloom(*inputs))
    calls = {name: (lambda f=f: run(f, inputs, grad)) for name, f in functions.items()}
    for name, rival in case.rivals.items():
        function, make = rival if isinstance(rival, tuple) else (rival, None)
        own = [t.to(dtype).requires_grad_() for t in make()] if make else inputs
        calls[name] = lambda f=function, own=own: run(f, own, grad)
    times = time_alternating(calls, rounds, seconds)
    milliseconds = times.pop("headloom")
    memory = {name: extra_bytes(call) for name, call in calls.items()}
    forward = pass_name == "forward"
    flops = case.forward_flops * (1 if forward else 3)
    taken = sum(t.numel() * t.element_size() for t in inputs)
    given = grad.numel() * grad.element_size()
    # A backward pass reads inputs and output gradient and writes the inputs' gradients.
    moved = taken + given if forward else 3 * taken + 2 * given
    floor = max(flops / limits["gflops"] / 1e9, moved / limits["gb_per_s"] / 1e9) * 1e3
    copied = copy_ms(moved)
    return {
        "mechanism": case.mechanism,
        "case": case.name,
        "dtype": str(dtype).removeprefix("torch."),
        "pass": pass_name,
        "series": case.series(),
        "length": case.length,
        "headloom_ms": milliseconds,
        "peers": {name: ms for name, ms in times.items() if name not in case.rivals},
        "rivals": {name: times[name] for name in case.rivals},
        "floor_ms": floor,
        "of_peak": flops / limits["gflops"] / 1e6 / milliseconds,
        "of_copy": copied / milliseconds,
        "moved_bytes": moved,
        "input_bytes": taken,
        "extra_bytes": memory.pop("headloom"),
        "peer_extra_bytes": memory,
        "left_out": left_out,
    }

"""Measures implementations of one thing against each other, in one process and alternating.

A case names a size and gives its inputs, headloom's function, the peers' functions, and the operations
and bytes that the mathematics needs. A row is refused when the outputs or gradients disagree.
"""

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
    unlike: frozenset = frozenset()  # peers that compute something else: timed, not compared
    # What is run in float64 for the comparison: the first peer by default; at a length where that
    # would not fit, an operator that the tests compare; None: nothing fits, nothing is compared.
    truth: Callable | None | str = "first peer"
    dtypes: list[torch.dtype] = field(default_factory=lambda: [torch.float32])


class Disagreement(Exception):
    pass


def run_forward(function, inputs, _):
    with torch.no_grad():
        return [function(*inputs)]


def run_forward_backward(function, inputs, grad):
    output = function(*inputs)
    return [output, *torch.autograd.grad(output, inputs, grad)]


PASSES = {"forward": run_forward, "forward_backward": run_forward_backward}


def time_alternating(calls, rounds, seconds):
    """Median milliseconds of each call; rounds go through all of them in turn."""
    repeats = {}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        once = time.perf_counter() - start
        repeats[name] = max(1, int(seconds / rounds / max(once, 1e-7)))
    samples = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            samples[name].append((time.perf_counter() - start) / repeats[name] * 1e3)
    return {name: statistics.median(values) for name, values in samples.items()}


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


def measure(case, dtype, pass_name, limits, rounds, seconds):
    """One row, or Disagreement."""
    run = PASSES[pass_name]
    inputs = [t.to(dtype).requires_grad_() for t in case.inputs()]
    # The float64 truth starts from the rounded inputs: what is compared is arithmetic, not rounding.
    rounded = [t.detach().double().requires_grad_() for t in inputs] if case.truth else []
    truth = next(iter(case.peers.values())) if case.truth == "first peer" else case.truth
    with torch.no_grad():
        grad = torch.randn_like((truth or case.headloom)(*(rounded if truth else inputs))).to(dtype)
    exact = run(truth, rounded, grad.double()) if truth else None

    functions = {"headloom": case.headloom, **case.peers}
    if case.compiled:
        functions["compile"] = torch.compile(case.peers[case.compiled], dynamic=False)
    calls = {name: (lambda f=f: run(f, inputs, grad)) for name, f in functions.items()}
    for name, call in calls.items():
        if exact is not None and name not in case.unlike:
            check_agreement(f"{case.mechanism} {case.name} {name}", call(), exact, dtype)
    times = time_alternating(calls, rounds, seconds)
    memory = {name: extra_bytes(call) for name, call in calls.items()}
    flops = case.forward_flops * (1 if pass_name == "forward" else 3)
    moved = sum(t.numel() * t.element_size() for t in [*inputs, grad])
    moved *= 1 if pass_name == "forward" else 2
    floor = max(flops / limits["gflops"] / 1e9, moved / limits["gb_per_s"] / 1e9) * 1e3
    return {
        "mechanism": case.mechanism,
        "case": case.name,
        "dtype": str(dtype).removeprefix("torch."),
        "pass": pass_name,
        "headloom_ms": times.pop("headloom"),
        "peers": times,
        "floor_ms": floor,
        "extra_bytes": memory.pop("headloom"),
        "peer_extra_bytes": memory,
    }

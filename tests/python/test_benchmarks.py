"""The benchmark harness: its rows, and that it refuses a wrong result."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cases
import harness

ROOT = Path(__file__).resolve().parents[2]


def case(wrong_output=False, wrong_gradient=False):
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x + (1e-2 if wrong_output else 0.0)

        @staticmethod
        def backward(ctx, grad):
            return (2.1 if wrong_gradient else 2.0) * grad

    return harness.Case(
        mechanism="double",
        name="64",
        inputs=lambda: [torch.randn(64)],
        headloom=Double.apply,
        peers={"sum": lambda x: x + x},
        forward_flops=64,
    )


LIMITS = {"gflops": 100.0, "gb_per_s": 10.0}


def measure(case, pass_name):
    return harness.measure(case, torch.float32, pass_name, LIMITS, rounds=1, seconds=0.001)


def test_row_has_every_field():
    row = measure(case(), "forward_backward")
    assert set(row) == {
        "mechanism",
        "case",
        "dtype",
        "pass",
        "headloom_ms",
        "peers",
        "rivals",
        "floor_ms",
        "of_peak",
        "of_copy",
        "moved_bytes",
        "input_bytes",
        "extra_bytes",
        "peer_extra_bytes",
    }
    assert set(row["peers"]) == set(row["peer_extra_bytes"]) == {"sum"}
    assert row["headloom_ms"] > 0 and row["floor_ms"] > 0


def test_wrong_output_is_refused():
    with pytest.raises(harness.Disagreement, match="output"):
        measure(case(wrong_output=True), "forward")


def test_wrong_gradient_is_refused():
    measure(case(wrong_gradient=True), "forward")
    with pytest.raises(harness.Disagreement, match="gradient 0"):
        measure(case(wrong_gradient=True), "forward_backward")


def test_extra_bytes_counts_what_is_between():
    def call():
        held = torch.ones(1 << 20)
        return [held.sum().reshape(1)]

    assert 4 << 20 <= harness.extra_bytes(call) < 5 << 20


@pytest.mark.slow
def test_command_writes_rows(tmp_path):
    out = tmp_path / "rows.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "compare.py"), "--mechanism", "all"]
    command += ["--quick", "--no-compile", "--threads", "2", "--json", str(out)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    result = json.loads(out.read_text())
    assert result["refused"] == []
    assert {row["mechanism"] for row in result["rows"]} == set(cases.MECHANISMS)
    assert {row["pass"] for row in result["rows"]} == {"forward", "forward_backward"}

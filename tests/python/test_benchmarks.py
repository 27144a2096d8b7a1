"""The benchmark harness: its rows, and that it refuses a wrong result."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cases
import harness
import stored

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
        "series",
        "length",
        "headloom_ms",
        "peers",
        "rivals",
        "floor_ms",
        "of_peak",
        "of_copy",
        "moved_bytes",
        "extra_bytes",
        "peer_extra_bytes",
        "left_out",
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


def test_a_peer_without_a_backward_pass_is_named():
    with_flex = case()
    with_flex.flex = lambda x: 2 * x
    functions, left_out = harness.functions_of(with_flex, "forward")
    assert "flex" in functions and left_out == {}
    functions, left_out = harness.functions_of(with_flex, "forward_backward")
    assert "flex" not in functions and "no backward" in left_out["flex"]


def test_series_is_the_name_without_the_length():
    long = case()
    long.name, long.length = "B1 H8 T64 D64", 64
    assert long.series() == "B1 H8 D64"


@pytest.mark.parametrize("name", cases.MECHANISMS)
def test_scaling_changes_the_length_alone(name):
    found = cases.load(name, scaling=True)
    assert len({case.series() for case in found}) == min(1, len(found))
    assert len({case.length for case in found}) == len(found)


def row(**fields):
    known = {"mechanism": "m", "case": "c", "dtype": "float32", "pass": "forward"}
    return {**known, "tier": "tuned", "threads": 2, "headloom_ms": 1.0, **fields}


def test_newer_rows_replace_older_ones(tmp_path):
    file = tmp_path / "rows.json"
    stored.merge(file, "here", [row(), row(case="d")])
    stored.merge(file, "here", [row(headloom_ms=2.0), row(threads=1)])
    rows = stored.read(file)["rows"]
    assert [(r["case"], r["threads"], r["headloom_ms"]) for r in rows] == [
        ("c", 1, 1.0),
        ("c", 2, 2.0),
        ("d", 2, 1.0),
    ]


def test_a_refused_row_does_not_stay(tmp_path):
    file = tmp_path / "rows.json"
    stored.merge(file, "here", [row(), row(case="d")])
    stored.merge(file, "here", [], refused=[row()])
    assert [r["case"] for r in stored.read(file)["rows"]] == ["d"]


def test_rows_of_another_machine_are_refused(tmp_path):
    file = tmp_path / "rows.json"
    stored.merge(file, "here", [row()])
    with pytest.raises(ValueError, match="expected rows of this machine"):
        stored.merge(file, "there", [row()])


def test_plots_come_from_the_longest_series(tmp_path):
    pytest.importorskip("matplotlib")
    import plot

    def at(length, series="long", **fields):
        both = {"pass": "forward_backward", "peers": {"torch": 2.0 * length}, "rivals": {}}
        known = row(series=series, length=length, headloom_ms=1.0 * length, **both)
        return {**known, "extra_bytes": 0, "peer_extra_bytes": {"torch": length}, **fields}

    rows = [at(n) for n in (512, 128, 256)] + [at(128, "short"), at(64, dtype="bfloat16")]
    found = plot.series_of(rows)
    assert [r["length"] for r in found["m"]] == [128, 256, 512]
    assert plot.series_of(rows[:2]) == {}
    assert plot.lines_of(found["m"])["torch"][0] == (128, 256.0, 128)
    plot.draw("m", found["m"], tmp_path / "a.svg")
    plot.draw("m", found["m"], tmp_path / "b.svg")
    text = (tmp_path / "a.svg").read_text("utf-8")
    assert text == (tmp_path / "b.svg").read_text("utf-8")
    assert "headloom" in text and "torch" in text and "512" in text
    # A picture lies on white and on black pages: no text may keep the default black.
    for tag in re.findall(r"<text [^>]*>", text):
        assert "fill: #7b828c" in tag, tag


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
    assert {row["mechanism"] for row in result["rows"]} == set(cases.MECHANISMS)
    assert all(row["tier"] == "shipped" and row["threads"] == 2 for row in result["rows"])
    assert {row["pass"] for row in result["rows"]} == {"forward", "forward_backward"}

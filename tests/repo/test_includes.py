"""Who may include whom, and that the check itself notices."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import check_includes  # noqa: E402


def test_tree_keeps_the_rules():
    assert check_includes.check(ROOT) == []


@pytest.mark.parametrize(
    ("path", "included"),
    [
        ("headloom/base/a.h", "headloom/kernels/isa.h"),
        ("headloom/base/a.h", "torch/torch.h"),
        ("headloom/kernels/a_cpu.cpp", "headloom/tensor/contract.h"),
        ("headloom/kernels/a_cpu.cpp", "ATen/ATen.h"),
        ("headloom/tensor/a.cpp", "headloom/kernels/isa.h"),
        ("headloom/mechanisms/a/a.cpp", "headloom/mechanisms/dot_product/dot_product.h"),
        ("headloom/mechanisms/a/a.cpp", "headloom/nn/transformer.h"),
        ("headloom/mechanisms/a/a_cpu.cpp", "ATen/ATen.h"),
        ("headloom/mechanisms/a/a_cuda.cu", "torch/types.h"),
        ("headloom/mechanisms/a/a_kernels.h", "c10/core/ScalarType.h"),
        ("headloom/nn/a.cpp", "headloom/tasks/task.h"),
        ("headloom/nn/a.cpp", "headloom/kernels/isa.h"),
        ("headloom/tasks/a.cpp", "headloom/train/run.h"),
        ("headloom/train/a.cpp", "headloom/cli/train.h"),
        ("headloom/train/a.cpp", "headloom/report/report.h"),
        ("headloom/report/a.cpp", "headloom/train/run.h"),
    ],
)
def test_forbidden_include_is_reported(tmp_path, path, included):
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(f'#include "{included}"\n')
    found = check_includes.check(tmp_path)
    assert len(found) == 1
    assert path in found[0] and included in found[0]


@pytest.mark.parametrize(
    ("path", "included"),
    [
        ("headloom/mechanisms/a/a.cpp", "headloom/mechanisms/registry.h"),
        ("headloom/mechanisms/a/a.cpp", "headloom/mechanisms/a/a_kernels.h"),
        ("headloom/mechanisms/a/a.cpp", "torch/library.h"),
        ("headloom/nn/a.cpp", "headloom/mechanisms/dot_product/dot_product.h"),
        ("headloom/cli/a.cpp", "headloom/report/report.h"),
    ],
)
def test_allowed_include_passes(tmp_path, path, included):
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(f'#include "{included}"\n')
    assert check_includes.check(tmp_path) == []

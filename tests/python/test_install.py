"""The install tree: a C++ program finds headloom in it, trains and generates."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def run(*command, **options):
    done = subprocess.run(
        [str(word) for word in command], text=True, capture_output=True, timeout=560, **options
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prefix")
    run("cmake", "--install", ROOT / "build", "--prefix", folder, "--component", "cpp")
    return folder


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
def test_a_program_trains_and_generates(prefix, tmp_path):
    run(
        "cmake",
        *("-S", ROOT / "examples" / "train_and_generate", "-B", tmp_path, "-G", "Ninja"),
        f"-DCMAKE_PREFIX_PATH={prefix};{torch.utils.cmake_prefix_path}",
        "-DCMAKE_BUILD_TYPE=Release",
    )
    run("cmake", "--build", tmp_path)
    # Nothing but the install tree and torch may be needed.
    environment = {k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"}
    printed = run(tmp_path / "train_and_generate", env=environment)
    assert re.search(r"step 400: 0\.\d+ nats a byte", printed)
    assert "0 1 2 3 4 5" in printed


@pytest.mark.slow
def test_the_installed_command_runs(prefix):
    assert "dynamic_conv" in run(prefix / "bin" / "headloom", "list")


def test_the_package_says_when_torch_is_missing(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')\n", encoding="utf-8")
    environment = dict(os.environ, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT / 'python'}")
    python = Path(sys.executable)
    done = subprocess.run(
        [python, "-c", "import headloom"], env=environment, text=True, capture_output=True
    )
    assert done.returncode != 0
    assert "headloom: expected torch 2.11 to 2.13 in this Python; found none" in done.stderr


def test_the_package_says_when_torch_is_another(tmp_path, monkeypatch):
    from headloom import _library

    library = tmp_path / "libheadloom.so"
    library.with_suffix(".json").write_text('{"torch": "2.9.1+cpu", "headloom": "0.1.0"}')
    monkeypatch.setattr(_library, "find", lambda: library)
    with pytest.raises(ImportError) as refusal:
        _library.load()
    assert "headloom: expected torch 2.9, for which" in str(refusal.value)
    assert f"found torch {torch.__version__}. Build headloom again" in str(refusal.value)

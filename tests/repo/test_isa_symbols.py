"""Code compiled for one instruction set must not be able to stand in for another's.

The linker keeps one copy of each inline function or template instantiation. If such a copy was
compiled for AVX-512 and has the same name everywhere, the whole library may run it on a processor
without AVX-512. Every symbol that a kernel object defines must therefore name its instruction set.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OBJECTS = ROOT / "build" / "library" / "CMakeFiles"
ISAS = ("baseline", "avx2", "avx512", "avx512bf16")


def kernel_objects(isa):
    return sorted((OBJECTS / f"headloom_kernels_{isa}.dir").rglob("*.o"))


def foreign_symbols(listing, isa):
    """Lines of `nm` that define a global symbol outside headloom::kernels::<isa>."""
    own = f"7kernels{len(isa)}{isa}"
    foreign = []
    for line in listing.splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[1] in "TWVuDBRSGC" and own not in fields[2]:
            foreign.append(fields[2])
    return foreign


def vector_instructions_beyond_baseline(disassembly):
    return re.findall(r"^.*\t(?:v[a-z0-9]+\s.*|.*%[yz]mm\d+.*)$", disassembly, re.MULTILINE)


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("isa", ISAS)
def test_symbols_name_their_instruction_set(isa):
    objects = kernel_objects(isa)
    if not objects or shutil.which("nm") is None:
        pytest.skip(f"needs nm and kernel objects for {isa} in build/")
    for path in objects:
        listing = run("nm", "--defined-only", str(path))
        assert f"7kernels{len(isa)}{isa}" in listing, f"{path.name}: no kernels found"
        assert foreign_symbols(listing, isa) == [], path.name


def test_baseline_has_no_newer_instructions():
    objects = kernel_objects("baseline")
    if not objects or shutil.which("objdump") is None:
        pytest.skip("needs objdump and kernel objects in build/")
    if "x86-64" not in run("objdump", "-f", str(objects[0])):
        pytest.skip("looks at x86-64 instructions")
    for path in objects:
        disassembly = run("objdump", "-d", "--no-show-raw-insn", str(path))
        assert vector_instructions_beyond_baseline(disassembly) == [], path.name


def test_offenders_are_noticed():
    listing = (
        "0000000000000000 W _ZSt3maxIfERKT_S2_S2_\n"
        "0000000000000010 T _ZN8headloom7kernels6avx5124gemmEv\n"
        "0000000000000020 W _ZSt4sortIN8headloom7kernels6avx5123VecIfEEEvT_\n"
        "0000000000000030 V _ZN8headloom8philoxEj\n"
        "0000000000000040 t _ZN8headloom5localEv\n"
    )
    assert foreign_symbols(listing, "avx512") == ["_ZSt3maxIfERKT_S2_S2_", "_ZN8headloom8philoxEj"]
    disassembly = "   0:\taddps  %xmm1,%xmm0\n   4:\tvaddps %ymm1,%ymm0,%ymm0\n   9:\tvzeroupper \n"
    assert len(vector_instructions_beyond_baseline(disassembly)) == 2

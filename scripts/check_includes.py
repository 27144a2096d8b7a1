#!/usr/bin/env python3
"""Checks who includes whom under headloom/, and which folders see torch.

Usage: check_includes.py [ROOT]. Prints one line a violation; exits 1 when there is any.
"""

import re
import sys
from pathlib import Path

# folder -> folders of headloom/ it may include, besides itself
ALLOWED = {
    "base": set(),
    "kernels": {"base"},
    "tensor": {"base"},
    "mechanisms": {"base", "kernels", "tensor"},
    "nn": {"base", "kernels", "tensor", "mechanisms"},
    "text": {"base"},
    "tasks": {"base", "tensor", "mechanisms", "nn", "text"},
    "report": {"base"},
    "train": {"base", "tensor", "mechanisms", "nn", "text", "tasks"},
    "cli": {"base", "tensor", "mechanisms", "nn", "text", "tasks", "report", "train"},
}
# Design: nn never reaches into kernels; what a model needs of them comes through a mechanism.
ALLOWED["nn"].discard("kernels")

TORCH_FREE = {"base", "kernels", "report", "text"}
# The one file of base/ that lends the kernels torch's thread pool.
TORCH_EXCEPTIONS = {"headloom/base/parallel.cpp"}
KERNEL_FILES = re.compile(r"_(cpu\.cpp|cuda\.cu|kernels\.h)$")

INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)
TORCH_HEADER = re.compile(r"^(torch|ATen|c10)/")


def folder_of(path):
    """('mechanisms', 'dot_product') of headloom/mechanisms/dot_product/x.h; slice '' elsewhere."""
    parts = path.split("/")
    folder = parts[1] if len(parts) > 2 else ""
    return folder, parts[2] if folder == "mechanisms" and len(parts) > 3 else ""


def violations_of(path, text):
    folder, slice_name = folder_of(path)
    for included in INCLUDE.findall(text):
        if TORCH_HEADER.match(included):
            torch_free = folder in TORCH_FREE or KERNEL_FILES.search(path)
            if torch_free and path not in TORCH_EXCEPTIONS:
                yield f"{path}: must not see torch, and includes {included}"
        if not included.startswith("headloom/"):
            continue
        target, target_slice = folder_of(included)
        if target != folder and target not in ALLOWED.get(folder, set()):
            yield f"{path}: {folder}/ must not include {target}/, and includes {included}"
        if folder == target == "mechanisms" and target_slice and target_slice != slice_name:
            user = slice_name or "mechanisms/"
            yield f"{path}: {user} must not include the slice {target_slice}, and includes {included}"


def check(root):
    found = []
    for path in sorted((root / "headloom").rglob("*")):
        if path.suffix in {".h", ".cpp", ".cu", ".cuh"}:
            name = path.relative_to(root).as_posix()
            found.extend(violations_of(name, path.read_text(encoding="utf-8")))
    return found


def main():
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    found = check(root)
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

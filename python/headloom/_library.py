"""Finds and loads the shared library that holds headloom's operators."""

import json
from pathlib import Path

try:
    import torch
except ImportError as missing:
    raise ImportError(
        "headloom: expected torch 2.11 to 2.13 in this Python; found none. Install torch, then "
        "headloom, which is built for the torch that it finds."
    ) from missing

_PACKAGE = Path(__file__).resolve().parent
_CANDIDATES = (
    _PACKAGE / "lib" / "libheadloom.so",
    _PACKAGE.parent.parent / "build" / "libheadloom.so",
)


def _minor(version):
    return ".".join(version.split("+")[0].split(".")[:2])


def find():
    """Path of the shared library: the installed one, else the one in the source tree's build folder."""
    for path in _CANDIDATES:
        if path.exists():
            return path
    places = " or ".join(str(path) for path in _CANDIDATES)
    raise ImportError(
        f"headloom: expected the shared library at {places}; found none. Run `make build`."
    )


def load():
    path = find()
    info = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    if _minor(info["torch"]) != _minor(torch.__version__):
        raise ImportError(
            f"headloom: expected torch {_minor(info['torch'])}, for which {path} was built; found "
            f"torch {torch.__version__}. Build headloom again with this torch."
        )
    torch.ops.load_library(str(path))
    return info

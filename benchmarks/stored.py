"""Rows of measurements in one JSON file that many runs of ``compare.py`` or ``training.py`` add to.

A file belongs to one machine. A row is known by ``KEY``: a new measurement of it takes the place of the
old one, and a refusal takes it away, for a number that no longer stands may not stay.
"""

import json
import os

KEY = ("mechanism", "case", "dtype", "pass", "tier", "threads")


def key_of(row):
    return tuple(row[name] for name in KEY)


def read(path):
    """{"machine": ..., "rows": [...]}, or None where there is no file."""
    if not path.exists():
        return None
    return json.loads(path.read_text(encoding="utf-8"))


def merge(path, machine, rows, refused=()):
    """Adds rows; ``refused`` are rows too, of which only the key is read. Returns what is stored now."""
    stored = read(path) or {"machine": machine, "rows": []}
    if stored["machine"] != machine:
        raise ValueError(
            f"{path}: expected rows of this machine, {machine!r}; found those of {stored['machine']!r}. "
            "Name another file."
        )
    kept = {key_of(row): row for row in stored["rows"]}
    kept.update((key_of(row), row) for row in rows)
    for row in refused:
        kept.pop(key_of(row), None)
    stored["rows"] = sorted(kept.values(), key=key_of)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Whole or not at all: a long list of measurements may be stopped at any time.
    whole = path.with_name(path.name + ".tmp")
    whole.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    os.replace(whole, path)
    return stored

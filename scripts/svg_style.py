"""How the project's pictures look: SVG with text as text, transparent, readable on white and on black,
and the same bytes from the same numbers."""

import re

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot  # noqa: E402

GREY = "#7b828c"  # contrast above 3.8 on white and on furo's dark page
COLOURS = ["#e4572e", "#2f86c8", "#3d9a50", "#a869c0", "#b98a1d", "#1a9c9c", "#d1679a", "#7b828c"]

STYLE = (
    {
        "svg.fonttype": "none",
        "svg.hashsalt": "headloom",
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.titlesize": 9,
        "legend.fontsize": 8,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "savefig.facecolor": "none",
        "image.interpolation": "none",
        "image.cmap": "viridis",
    }
    | {f"{part}.color": GREY for part in ("text", "xtick", "ytick", "grid")}
    | {f"axes.{part}": GREY for part in ("edgecolor", "labelcolor", "titlecolor")}
)


pyplot.rcParams.update(STYLE)


def subplots(*shape, **options):
    return pyplot.subplots(*shape, layout="constrained", **options)


def save(figure, file):
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    # The writer ends lines with spaces and names fonts that only some machines have.
    text = file.read_text(encoding="utf-8")
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "sans-serif", text)
    file.write_text(text, encoding="utf-8")

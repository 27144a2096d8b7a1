"""The documentation: its code runs, its links lead somewhere, its figures are those that are stored."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "python")]

import readme_table  # noqa: E402

PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "headloom").rglob("*.md"), *(ROOT / "docs").rglob("*.md")]
)
PAGES = [page for page in PAGES if "_build" not in page.parts]


def name_of(page):
    return str(page.relative_to(ROOT))


def blocks(text, language):
    """[(line, code)] of the fenced blocks in that language."""
    found = re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start(1)) + 1, match[1]) for match in found]


def slug(heading):
    """The anchor that GitHub and MyST give a heading."""
    plain = re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading.strip().lower()))
    return plain.replace(" ", "-")


def anchors(page):
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


def broken_links(page, text):
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    assert broken_links(page, page.read_text("utf-8")) == []


def test_a_broken_link_is_noticed():
    page = ROOT / "README.md"
    text = "[a](docs/index.md) [b](docs/missing.md) [c](CONTRIBUTING.md#the-house) [d](#nowhere)"
    assert broken_links(page, text) == ["docs/missing.md", "#nowhere"]


@pytest.fixture
def surroundings(tmp_path, monkeypatch):
    """What the examples take for granted: a trained run, and a model to download."""

    def prepare(text):
        monkeypatch.chdir(tmp_path)
        if "runs/tiny_shakespeare" in text:
            command = ROOT / "build" / "headloom"
            if not command.exists():
                pytest.skip("needs build/headloom to train a run")
            recipe = ROOT / "recipes" / "smoke" / "language_model.toml"
            train = [command, "train", recipe, "--folder", tmp_path / "runs" / "tiny_shakespeare"]
            subprocess.run(train, check=True, capture_output=True, cwd=ROOT)
        if "from_pretrained" in text:
            transformers = pytest.importorskip("transformers")
            tiny = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
            config = transformers.BertConfig(vocab_size=32, intermediate_size=16, **tiny)
            monkeypatch.setattr(
                transformers.AutoModelForMaskedLM,
                "from_pretrained",
                lambda name: transformers.BertForMaskedLM(config),
            )

    return prepare


@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks(p.read_text("utf-8"), "python")], ids=name_of
)
def test_python_runs(page, surroundings):
    """The blocks of a page one after the other, as a reader would paste them."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    text = page.read_text("utf-8")
    surroundings("\n".join(code for _, code in blocks(text, "python")))
    names = {}
    for line, code in blocks(text, "python"):
        # As many lines above, so that an error names the line of the page.
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), names)


@pytest.mark.slow
def test_the_readmes_cpp_compiles(tmp_path):
    torch = pytest.importorskip("torch")
    ((_, code),) = blocks((ROOT / "README.md").read_text("utf-8"), "cpp")
    source = tmp_path / "readme.cpp"
    source.write_text(code)
    headers = Path(torch.__file__).parent / "include"
    folders = [ROOT, headers, headers / "torch" / "csrc" / "api" / "include"]
    include = [f"-I{folder}" for folder in folders]
    done = subprocess.run(
        ["c++", "-std=c++20", "-fsyntax-only", *include, source], text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr


def test_tables_are_those_of_the_stored_rows():
    """`python scripts/readme_table.py` rewrites them."""
    for path, text in readme_table.pages().items():
        assert path.read_text("utf-8") == text, f"{name_of(path)}: run scripts/readme_table.py"


def row(pass_name, ours, theirs, **fields):
    known = {"mechanism": "talking_heads", "tier": "tuned", "pass": pass_name}
    return {**known, "headloom_ms": ours, "peers": {"a": theirs, "b": 9 * theirs}, **fields}


def test_the_speed_is_that_of_the_best_alternative():
    rows = [
        row("forward", 1.0, 2.0),
        row("forward", 2.0, 1.0),
        row("forward_backward", 1.0, 3.0),
        row("forward", 1.0, 50.0, tier="shipped"),
        row("forward", 1.0, 70.0, mechanism="light_conv"),
    ]
    assert readme_table.speed(rows, {"": "talking_heads"}) == "0.5 to 2.0 / 3.0"
    assert readme_table.speed([], {"": "talking_heads"}) == "– / –"


@pytest.mark.slow
def test_pages_build_without_warnings(tmp_path):
    for package in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(package)
    build = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", "docs", tmp_path]
    done = subprocess.run(build, cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "talking_heads_attention" in (tmp_path / "api" / "python.html").read_text("utf-8")


RECIPES = sorted((ROOT / "recipes").glob("*.toml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_what_it_reached(recipe):
    assert re.search(r"^# Reached: \S", recipe.read_text("utf-8"), re.MULTILINE)

"""What ``training.py`` measures: recipes, mechanisms, and where their data is."""

import random
from dataclasses import dataclass
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "recipes"

ALL = ("dot_product", "light_conv", "dynamic_conv", "talking_heads", "symmetric", "h_transformer")
COMPARED = ALL[:3]
T5 = ("talking_heads", "multi_head")


@dataclass(frozen=True)
class Row:
    recipe: Path
    mechanism: str  # or what [compare] calls a variant
    settings: tuple[str, ...] = ()  # beside the recipe's
    smaller: str = ""  # than published: what, in words
    batches: int = 200  # that both sides take; then torch begins again

    @property
    def name(self):
        return f"{self.recipe.stem} {self.mechanism}"

    def mixer_settings(self):
        """What the mechanism's name stands for in this recipe."""
        compare = tomllib.loads(self.recipe.read_text(encoding="utf-8")).get("compare", {})
        variant = dict(compare.get(self.mechanism, {}))
        name = variant.pop("mechanism", self.mechanism)
        chosen = list(variant.pop("set", []))
        options = [f"mixer.{key}={toml_value(value)}" for key, value in variant.items()]
        return (f"mixer.name={name}", *options, *chosen)


def toml_value(value):
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def rows_of(name, mechanisms, settings=(), **fields):
    return [Row(RECIPES / f"{name}.toml", each, settings, **fields) for each in mechanisms]


def few(size):
    """Generated data enough for a benchmark."""
    return (f"task.train_size={size}", "task.validation_size=16", "task.test_size=16")


ROWS = [
    *rows_of("demo", ALL, few(6400)),
    *rows_of("cora", ("dot_product",), batches=1),
    *rows_of(
        "listops_lra",
        ("dot_product", "h_transformer"),
        ("train.batch_size=4", *few(256)),
        smaller="4 expressions a batch instead of 32",
        batches=24,
    ),
    *rows_of(
        "lra_text",
        ("dot_product", "h_transformer"),
        ("train.batch_size=8",),
        smaller="8 reviews a batch instead of 32",
        batches=24,
    ),
    *rows_of(
        "lra_image",
        ("dot_product",),
        ("train.batch_size=16",),
        smaller="16 pictures a batch instead of 256, of random pixels",
        batches=8,
    ),
    *rows_of(
        "lra_pathfinder",
        ("dot_product",),
        ("train.batch_size=8", *few(512)),
        smaller="8 images a batch instead of 512",
        batches=8,
    ),
    *rows_of(
        "lra_retrieval",
        ("dot_product", "h_transformer"),
        ("train.batch_size=1",),
        smaller="1 pair a batch instead of 32, of random bytes",
        batches=8,
    ),
    *rows_of("multi30k", ALL),
    *rows_of("optdigits", ("dot_product",), batches=54),
    *rows_of("tiny_shakespeare", ALL),
    # Before the rows of GLUE, whose tokenizer is learned from this text.
    *rows_of("wikitext2_mlm", COMPARED),
    *rows_of("wikitext2_symmetric", ("dot_product", "symmetric", "pairwise", "pairwise_identity")),
    *rows_of("wikitext2_t5", T5),
    *rows_of("sst2", COMPARED),
    # Fine-tuning takes the same time from any weights.
    *rows_of("sst2_tuned", ("dot_product",), ('model.initial=""',)),
    *rows_of("sst2_t5", T5),
    *rows_of("mrpc", ("dot_product",), ('model.initial=""',)),
    *rows_of("rte", ("dot_product",), ('model.initial=""',)),
]


def glue(folder):
    return {
        "tokenizer": "wikitext-2/tokenizer_4000.json",
        "train_file": f"{folder}/train.tsv",
        "validation_file": f"{folder}/dev.tsv",
    }


def wikitext(vocabulary):
    return {
        "tokenizer": f"wikitext-2/tokenizer_{vocabulary}.json",
        "path": "wikitext-2/train.txt",
        "validation_path": "wikitext-2/valid.txt",
    }


# Of each recipe, the files under the folder of the data: {setting: file}.
FILES = {
    "cora": {"folder": "cora"},
    "lra_text": {"train_file": "imdb/train.tsv", "validation_file": "imdb/test.tsv"},
    "multi30k": {
        "tokenizer": "multi30k/bpe.json",
        "train_source": "multi30k/train.lc.norm.tok.en",
        "train_target": "multi30k/train.lc.norm.tok.de",
        "validation_source": "multi30k/val.lc.norm.tok.en",
        "validation_target": "multi30k/val.lc.norm.tok.de",
    },
    "mrpc": glue("mrpc"),
    "optdigits": {"folder": "optdigits"},
    "rte": glue("rte"),
    "sst2": glue("sst2") | {"tokenizer": "sst2/tokenizer.json"},
    "sst2_tuned": glue("sst2"),
    "sst2_t5": glue("sst2"),
    "tiny_shakespeare": {"path": "tiny_shakespeare/input.txt"},
    "wikitext2_mlm": wikitext(4000),
    "wikitext2_symmetric": wikitext(1000),
    "wikitext2_t5": wikitext(4000),
}
# Learned and written by the run when they are not there.
LEARNED = ("tokenizer",)


def made_up(recipe, folder):
    """Settings of a recipe whose data may not be passed on: files of random bytes."""
    generator = random.Random(1)
    if recipe == "lra_image":
        path = folder / "data_batch_1.bin"
        if not path.exists():
            records = (bytes([i % 10]) + generator.randbytes(3 * 1024) for i in range(640))
            path.write_bytes(b"".join(records))
        return (f"task.folder={folder}",)
    if recipe == "lra_retrieval":
        path = folder / "pairs.tsv"
        if not path.exists():
            letters = bytes(range(97, 123)) + b"     "

            def text():
                return bytes(generator.choices(letters, k=4000))

            lines = (b"%d.0\ta\tb\t%b\t%b\n" % (i % 2, text(), text()) for i in range(64))
            path.write_bytes(b"".join(lines))
        return (f"task.train_file={path}", f"task.validation_file={path}")
    return ()


def data_settings(recipe, data, work):
    """Where the data of a recipe lies, as overrides. Paths are absolute, for a recipe's own are not."""
    files = FILES.get(recipe, {})
    if files and data is None:
        return ()
    settings = []
    for key, file in files.items():
        path = (Path(data) / file).resolve()
        if key not in LEARNED and not path.exists():
            raise FileNotFoundError(f"--data: expected {path} for the recipe {recipe}; found none")
        settings.append(f"task.{key}={path}")
    return (*settings, *made_up(recipe, work))

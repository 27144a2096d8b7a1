"""Both sides of benchmarks/training.py train the same model, for every task and mechanism."""

import argparse
import os
import random

import pytest
import torch

import command
import trainer_run
import training
import training_rows

pytest.importorskip("safetensors")
pytestmark = [
    command.needed,
    pytest.mark.skipif(not training.START.exists(), reason="build/training_start is not built"),
]

SMOKE = command.ROOT / "recipes" / "smoke"
# Recipes of tasks whose model knows every mechanism in a form of its own.
WHOLE = ("listops", "language_model", "translation")
TASKS = ("byte_text", "classification", "image", "masked_lm", "pathfinder", "retrieval")
ROWS = [
    *((name, mechanism) for name in WHOLE for mechanism in training_rows.ALL),
    *((name, "dot_product") for name in TASKS),
]
# A block that is smaller than the sequences has levels.
BLOCK = {"h_transformer": ("mixer.block_size=4",)}


def place(row, folder):
    arguments = argparse.Namespace(work=folder, threads=1, data=None)
    return training.Place(row, arguments)


def smoke_row(name, mechanism, *settings):
    settings = (*BLOCK.get(mechanism, ()), *settings)
    return training_rows.Row(SMOKE / f"{name}.toml", mechanism, settings, batches=3)


@pytest.mark.parametrize(("name", "mechanism"), ROWS)
def test_both_sides_compute_the_same(name, mechanism, tmp_path):
    row = smoke_row(name, mechanism, "model.dropout=0.1", "train.clip=1.0")
    assert training.check(place(row, tmp_path)) > 0


@pytest.mark.parametrize(
    ("mechanism", "setting"),
    [("symmetric", 'mixer.form="symmetric"'), ("symmetric", 'mixer.initial="identity"')],
)
def test_forms_of_symmetric_attention(mechanism, setting, tmp_path):
    training.check(place(smoke_row("listops", mechanism, setting), tmp_path))


T5_SHAPE = (
    'model.norm_type="rms"',
    'model.activation="gated_gelu"',
    'model.positions="none"',
    'mixer.relative_bias="t5"',
    "mixer.buckets=8",
    "mixer.max_distance=16",
    'cross_mixer.name="talking_heads"',
)
UNMIXED = ('mixer.mixing="none"', 'cross_mixer.mixing="none"')


@pytest.mark.parametrize("name", ["span_corruption", "text_to_text"])
@pytest.mark.parametrize("settings", [T5_SHAPE, T5_SHAPE + UNMIXED], ids=["talking", "silent"])
def test_the_shape_of_t5(name, settings, tmp_path):
    training.check(place(smoke_row(name, "talking_heads", *settings), tmp_path))


def test_cross_attention_has_a_form_of_its_own():
    from torch_models.transformer import forms_of

    recipe = {"task": {"name": "span_corruption"}, "mixer": {"name": "light_conv"}}
    silent = {"name": "talking_heads", "mixing": "none"}
    assert ("band", "composition") in forms_of(recipe)
    recipe["cross_mixer"] = {"name": "talking_heads"}
    assert {cross for _, cross in forms_of(recipe)} == {"einsum", "matmul", "conv2d"}
    recipe |= {"mixer": silent, "cross_mixer": silent}
    assert forms_of(recipe) == [("sdpa", "sdpa"), ("composition", "composition")]


def test_kinds_of_tokens(tmp_path):
    lots, words = random.Random(1), "red green blue high low".split()
    lines = ["index\tsentence1\tsentence2\tlabel"]
    for index in range(16):
        texts = (" ".join(lots.choices(words, k=lots.randint(2, 8))) for _ in range(2))
        label = ("entailment", "not_entailment")[index % 2]
        lines.append("\t".join([str(index), *texts, label]))
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("\n".join(lines) + "\n", encoding="utf-8")
    files = (f"task.train_file={pairs}", f"task.validation_file={pairs}")
    settings = ('task.format="rte"', *files, "model.segments=2")
    training.check(place(smoke_row("classification", "dot_product", *settings), tmp_path))


def test_graphs(tmp_path):
    graph = tmp_path / "graph"
    graph.mkdir()
    lots = random.Random(1)
    nodes = ["node\tlabel\tsplit\tfeatures"]
    splits = ("train", "val", "test")
    for node in range(24):
        words = sorted(lots.sample(range(10), 3))
        columns = " ".join(map(str, words))
        nodes.append(f"{node}\t{words[0] % 3}\t{splits[node % 3]}\t{columns}")
    edges = ["u\tv", *(f"{node}\t{(node + 5) % 24}" for node in range(24))]
    (graph / "nodes.tsv").write_text("\n".join(nodes) + "\n", encoding="utf-8")
    (graph / "edges.tsv").write_text("\n".join(edges) + "\n", encoding="utf-8")
    row = training_rows.Row(
        training_rows.RECIPES / "cora.toml",
        "dot_product",
        (f"task.folder={graph}", "model.dim=16", "model.heads=2"),
        batches=1,
    )
    training.check(place(row, tmp_path))


def test_another_model_is_refused(tmp_path, monkeypatch):
    from torch_models import attention

    monkeypatch.setattr(attention.Attention, "forward", lambda self, x, masks: self.out_proj(x))
    with pytest.raises(training.Disagreement, match="norm of the gradient"):
        training.check(place(smoke_row("listops", "dot_product"), tmp_path))


def test_a_row_is_measured(tmp_path):
    row = training.measure(place(smoke_row("listops", "light_conv"), tmp_path), 2, 0.01)
    assert row["steps"] >= 2 and len(row["ratios"]) == 2
    assert row["ratio"] > 0 and row["headloom_ms"] > 0 and row["torch_ms"] > 0
    assert row["form"] in row["forms_ms"] and row["tokens_a_step"] > 0


def test_a_pause_is_taken_off_the_step_that_it_lies_in():
    run = object.__new__(trainer_run.TrainerRun)

    def seconds(*took):
        run.pause, run.lines_since_pause = 1.0, 0
        return [round(run._without_pause(each), 3) for each in took]

    assert seconds(1.1, 0.1, 0.1) == [0.1, 0.1, 0.1]
    assert seconds(0.1, 1.1, 0.1) == [0.1, 0.1, 0.1]
    assert seconds(0.1, 0.1, 1.1) == [0.1, 0.1, 1.1]


def test_others_are_noticed():
    others = training.Others()
    total = sum(range(3_000_000))
    assert total and others.share() > 0.0
    own = training.used_seconds(os.getpid())
    assert own > 0.0


def test_rows_have_names_of_their_own():
    names = [row.name for row in training_rows.ROWS]
    assert len(set(names)) == len(names)
    recipes = {path.stem for path in training_rows.RECIPES.glob("*.toml")}
    assert {row.recipe.stem for row in training_rows.ROWS} == recipes


def test_batches_are_put_together_again():
    from torch_models.trainer import Batches

    tokens = torch.tensor([[3, 1, 2], [4, 5, 0]])
    padding = torch.tensor([[False, False, False], [False, False, True]])
    stored = {
        "batch.0.tokens": tokens,
        "batch.0.padding": padding,
        "batch.0.targets": torch.tensor([1, 0]),
        "batch.1.tokens": tokens[:, :2],
        "batch.1.targets": torch.tensor([0, 1]),
    }
    batches = Batches(stored, mask_zeros=False)
    assert len(batches) == 2
    assert torch.equal(batches[0]["tokens"], tokens)
    assert torch.equal(batches[2]["padding"], padding)
    assert "padding" not in batches[1]
    assert batches[1]["targets"].tolist() == [0, 1]

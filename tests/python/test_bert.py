"""Importing BERT and RoBERTa models of the transformers package."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

import command
import headloom
from headloom.compat import bert

pytest.importorskip("safetensors")
transformers = pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
sys.path.insert(0, str(GOLDEN))
from make_bert import inputs, make, make_tokenizer  # noqa: E402

kinds = pytest.mark.parametrize("kind", ["bert", "roberta"])


def reference(model, kind):
    tokens, padding, types = inputs(kind)
    with torch.no_grad():
        return model(tokens, attention_mask=(~padding).long(), token_type_ids=types).logits


def ours(model, kind):
    tokens, padding, types = inputs(kind)
    with torch.no_grad():
        return model(tokens, padding, kinds=types)


def assert_same(found, expected, kind):
    """Padding aside: RoBERTa gives it a position of its own."""
    real = ~inputs(kind)[1]
    torch.testing.assert_close(found[real], expected[real], atol=1e-4, rtol=1e-4)


@pytest.fixture
def saved(tmp_path):
    def save(kind, model=None):
        folder = tmp_path / kind
        (model or make(kind)).save_pretrained(folder)
        make_tokenizer(kind).save(str(folder / "tokenizer.json"))
        return folder

    return save


@kinds
def test_logits_are_those_of_the_original(saved, kind):
    original = make(kind)
    imported = bert.load(saved(kind, original))
    assert not imported.training
    assert_same(ours(imported, kind), reference(original, kind), kind)


def test_token_types_and_padding_matter(saved):
    model = bert.load(saved("bert"))
    tokens, padding, types = inputs("bert")
    with torch.no_grad():
        whole = model(tokens, padding, kinds=types)
        assert not torch.allclose(model(tokens, padding), whole)
        assert not torch.allclose(model(tokens, kinds=types)[1], whole[1])


@kinds
def test_an_output_projection_of_its_own_is_kept(kind):
    original = make(kind)
    state = original.state_dict()
    head = "cls.predictions.decoder" if kind == "bert" else "lm_head.decoder"
    state[f"{head}.weight"] = torch.randn(24, 16)
    imported = bert.convert(state, original.config.to_dict())
    assert imported.model().output is not None
    assert f"{head}.bias" in imported.dropped


def test_old_names_a_pooler_and_the_other_head_are_understood():
    transformers.set_seed(3)
    config = make("bert").config
    original = transformers.BertForPreTraining(config).eval()
    state = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in original.state_dict().items()
    }
    state["bert.embeddings.position_ids"] = torch.arange(14)[None]
    imported = bert.convert(state, config.to_dict())
    assert imported.pooler.keys() == {"pooler.weight", "pooler.bias"}
    assert {"bert.embeddings.position_ids", "cls.seq_relationship.weight"} <= set(imported.dropped)
    tokens, padding, types = inputs("bert")
    with torch.no_grad():
        expected = original(
            tokens, attention_mask=(~padding).long(), token_type_ids=types
        ).prediction_logits
    assert_same(ours(imported.model(), "bert"), expected, "bert")


def test_what_cannot_be_imported_is_refused_by_name():
    original = make("bert")
    config, state = original.config.to_dict(), original.state_dict()
    for change, message in (
        (
            {"model_type": "gpt2"},
            "expected model_type 'bert' or 'roberta'; found 'gpt2'",
        ),
        ({"position_embedding_type": "relative_key"}, "found 'relative_key'"),
        ({"hidden_act": "silu"}, "expected hidden_act 'gelu'; found 'silu'"),
        ({"is_decoder": True}, "is_decoder"),
        (
            {"intermediate_size": 21},
            r"of shape \[21, 16\], as the configuration has it; found",
        ),
        (
            {"num_hidden_layers": 3},
            "a tensor bert.encoder.layer.2.attention.self.query.weight",
        ),
        ({"num_hidden_layers": 1}, r"16 more, e.g. bert.encoder.layer.1"),
    ):
        with pytest.raises(ValueError, match=message):
            bert.convert(state, {**config, **change})
    state = {name: tensor for name, tensor in state.items() if "transform.dense" not in name}
    with pytest.raises(ValueError, match="a tensor cls.predictions.transform.dense.weight"):
        bert.convert(state, config)


@command.needed
@kinds
def test_the_command_imports_the_same_model(saved, tmp_path, kind):
    original = make(kind)
    run = tmp_path / "run"
    printed = command.run("data", "import", saved(kind, original), "--output", run)
    assert "masked_lm" in printed
    imported = headloom.load(run)
    assert_same(ours(imported, kind), reference(original, kind), kind)
    text = tmp_path / "text.txt"
    text.write_text("a b c d e f g h i j k l\n" * 60, encoding="utf-8")
    settings = ("--set", f'task.path="{text}"', "--set", "task.context=12")
    figures = json.loads(command.run("eval", run, "--json", *settings))["metrics"]
    assert figures["loss"] > 0


@command.needed
def test_a_classifier_starts_from_the_imported_model(saved, tmp_path):
    transformers.set_seed(5)
    original = transformers.BertForPreTraining(make("bert").config).eval()
    run, tuned = tmp_path / "run", tmp_path / "tuned"
    command.run("data", "import", saved("bert", original), "--output", run)
    rows = [f"{'a b' if i % 2 else 'c d'} e\t{i % 2}" for i in range(40)]
    (tmp_path / "rows.tsv").write_text("sentence\tlabel\n" + "\n".join(rows) + "\n")
    settings = {
        "task.train_file": f'"{tmp_path}/rows.tsv"',
        "task.validation_file": f'"{tmp_path}/rows.tsv"',
        "task.vocabulary": 24,
        "task.max_length": 12,
        "model.initial": f'"{run}"',
        "model.heads": 4,
        "model.layers": 2,
        "model.ffn": 20,
        "model.norm": "post",
        "model.segments": 2,
        "model.embedding_norm": "true",
        "model.norm_eps": 1e-12,
        "model.max_length": 14,
        "optimizer.lr": 1e-9,
        "train.steps": 1,
    }
    command.train("classification", tuned, *(f"{key}={value}" for key, value in settings.items()))
    model = headloom.load(tuned)
    torch.testing.assert_close(
        model.pooler.weight, original.bert.pooler.dense.weight, atol=1e-6, rtol=0
    )
    tokens, padding, types = inputs("bert")
    with torch.no_grad():
        hidden = original.bert(
            tokens, attention_mask=(~padding).long(), token_type_ids=types
        ).last_hidden_state
        found = model.encoder(tokens, padding, kinds=types)
    assert_same(found, hidden, "bert")
    assert (tuned / "tokenizer.json").read_bytes() == (run / "tokenizer.json").read_bytes()
    shutil.rmtree(run)  # what was trained needs it no longer
    command.evaluate(tuned)

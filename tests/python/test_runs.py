"""Runs of the command as modules, and modules as runs."""

import json
import random
import shutil
import zlib

import pytest
import torch
from torch.nn import functional

import command
import headloom

pytest.importorskip("safetensors")
pytestmark = command.needed

MECHANISMS = headloom.nn.mixers()
FIRST, *OTHERS = MECHANISMS
first_is_fast = pytest.mark.parametrize(
    "mechanism", [FIRST, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)
CONTEXT = 32


def listops_file(path, count, seed):
    """Expressions of one operator, or of one inside another, with their values."""
    generator = random.Random(seed)
    apply = {"[MIN": min, "[MAX": max, "[SM": lambda values: sum(values) % 10}

    def digits():
        return [generator.randrange(10) for _ in range(generator.randint(2, 5))]

    lines = ["Source\tTarget"]
    for _ in range(count):
        (inner, outer), values, more = generator.choices(list(apply), k=2), digits(), digits()
        value = apply[outer]([apply[inner](values), *more])
        text = f"{outer} {inner} {' '.join(map(str, values))} ] {' '.join(map(str, more))} ]"
        lines.append(f"{text}\t{value}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_listops(path):
    table = {str(digit): digit + 1 for digit in range(10)}
    table |= {"[MIN": 11, "[MAX": 12, "[MED": 13, "[SM": 14, "]": 15}
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    tokens = [torch.tensor([table[word] for word in text.split()]) for text, _ in rows]
    padded = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)
    return padded, torch.tensor([int(value) for _, value in rows])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def text(folder):
    """A text, and the run folder of each mechanism and form trained on it."""
    path = folder / "text.txt"
    path.write_bytes(bytes(range(32, 127)) * 3 + (command.ROOT / "LICENSE").read_bytes()[:6000])

    def train(mechanism, *overrides):
        name = "-".join([mechanism, *overrides]).replace("/", "_")
        run = folder / name
        if not run.exists():
            settings = (f'task.path="{path}"', f"mixer.name={mechanism}", "model.layers=2")
            command.train("language_model", run, *settings, *overrides)
        return run

    train.path = path
    return train


@pytest.fixture(scope="module")
def expressions(folder):
    for split, count in (("train", 200), ("validation", 60)):
        listops_file(folder / f"{split}.tsv", count, seed=count)
    return folder


def nats_per_byte(model, path):
    """Every byte of the last tenth once, as the task's validation cuts it."""
    data = path.read_bytes()
    first = int(len(data) * 0.9)
    end = min(len(data), first + 512)
    total = 0.0
    for start in range(first, end, CONTEXT):
        stop = min(start + CONTEXT, end)
        window = torch.tensor([list(data[start - 1 : stop])])
        with torch.no_grad():
            logits = model(window[:, :-1])
        total += float(functional.cross_entropy(logits[0], window[0, 1:], reduction="sum"))
    return total / (end - first)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_language_model_has_the_commands_figures_and_text(text, mechanism):
    run = text(mechanism)
    model = headloom.load(run)
    assert not model.training and model.run.task == "language_model"
    torch.testing.assert_close(
        nats_per_byte(model, text.path), command.evaluate(run)["nats_per_byte"], atol=0, rtol=1e-5
    )
    for prompt, length, options in (
        ("The ", 150, {"temperature": 0}),  # longer than max_length: goes on from the newest half
        ("Ab", 40, {"temperature": 0.9, "top_k": 20, "top_p": 0.95, "seed": 5}),
    ):
        words = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
        printed = command.run("generate", run, "--prompt", prompt, "--length", length, *words)
        assert model.write(prompt, length, **options) == printed.removesuffix("\n")


@pytest.mark.parametrize(
    "overrides",
    [
        ("model.norm=post", "model.positions=sinusoidal", "model.activation=relu"),
        ("model.positions=none", "task.tie_embedding=false", "train.ema=0.9"),
    ],
    ids=("post-sinusoidal-relu", "untied-averaged"),
)
def test_every_form_of_a_model_is_loaded(text, overrides):
    run = text("dot_product", *overrides)
    torch.testing.assert_close(
        nats_per_byte(headloom.load(run), text.path),
        command.evaluate(run)["nats_per_byte"],
        atol=0,
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    ("mechanism", "pooling"), [(FIRST, "cls"), *((name, "mean") for name in MECHANISMS)]
)
def test_listops_has_the_commands_figures(expressions, mechanism, pooling):
    run = expressions / f"listops-{mechanism}-{pooling}"
    overrides = [
        f'task.{split}_file="{expressions}/{split}.tsv"' for split in ("train", "validation")
    ]
    recipe = (command.ROOT / "recipes/smoke/listops.toml").read_text(encoding="utf-8")
    generated = ("min_length", "max_args", "train_size", "validation_size", "test_size")
    kept = [line for line in recipe.splitlines() if not line.startswith(generated)]
    (expressions / "listops.toml").write_text("\n".join(kept), encoding="utf-8")
    settings = [*overrides, f"mixer.name={mechanism}", f"task.pooling={pooling}"]
    words = [word for setting in settings for word in ("--set", setting)]
    command.run("train", expressions / "listops.toml", "--folder", run, *words)
    tokens, values = read_listops(expressions / "validation.tsv")
    model = headloom.load(run)
    with torch.no_grad():
        logits = model(tokens)
    expected = command.evaluate(run)
    torch.testing.assert_close(
        float(functional.cross_entropy(logits, values)), expected["loss"], atol=0, rtol=1e-5
    )
    assert float((logits.argmax(1) == values).double().mean()) == pytest.approx(
        expected["accuracy"]
    )


def padded_bytes(texts, longest=48):
    rows = [torch.tensor([byte + 1 for byte in text.encode()[:longest]]) for text in texts]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def arena_data(task):
    """The validation data of a smoke recipe, as the arguments of its model, and the classes."""
    data = command.ROOT / "recipes/smoke/data"
    if task == "image":
        lines = (data / "bars/train.csv").read_text(encoding="utf-8").splitlines()[-6:]
        values = torch.tensor([[int(value) for value in line.split(",")] for line in lines])
        return (values[:, :-1],), values[:, -1]
    name = {"byte_text": "bytes", "retrieval": "pairs"}[task]
    lines = (data / f"{name}_validation.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    labels = torch.tensor([int(float(row[0])) for row in rows])
    if task == "byte_text":
        return (padded_bytes([row[-1] for row in rows]),), labels
    texts = padded_bytes([row[3] for row in rows] + [row[4] for row in rows])
    return texts.chunk(2), labels


@pytest.mark.parametrize(
    ("task", "overrides"),
    [
        ("byte_text", ()),
        ("byte_text", ("task.pooling=mean",)),
        ("image", ("mixer.width=8",)),
        ("image", ("task.pooling=mean", "task.mask_zeros=true")),
        ("retrieval", ()),
        ("retrieval", ("task.pooling=cls", "task.interactions=true", "model.max_length=49")),
    ],
)
def test_arena_tasks_have_the_commands_figures(folder, task, overrides):
    run = folder / "-".join([task, *overrides])
    command.train(task, run, *overrides)
    arguments, labels = arena_data(task)
    with torch.no_grad():
        logits = headloom.load(run)(*arguments)
    expected = command.evaluate(run)
    torch.testing.assert_close(
        float(functional.cross_entropy(logits, labels)), expected["loss"], atol=0, rtol=1e-5
    )
    assert float((logits.argmax(1) == labels).double().mean()) == pytest.approx(
        expected["accuracy"]
    )


def reviews(run, tokenizer):
    """The validation data of the smoke recipe as the task makes it, in one batch."""
    tokenizers = pytest.importorskip("tokenizers")
    encode = tokenizers.Tokenizer.from_file(str(tokenizer)).encode
    path = command.ROOT / "recipes/smoke/data/reviews_dev.tsv"
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    tokens = [torch.tensor(encode(text).ids[:32]) for text, _ in rows]
    padded = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=-1)
    return padded.clamp_min(0), padded == -1, torch.tensor([int(label) for _, label in rows])


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_classification_has_the_commands_figures(folder, pooling):
    run, tokenizer = folder / f"reviews-{pooling}", folder / "reviews.json"
    command.train("classification", run, f"task.pooling={pooling}", f'task.tokenizer="{tokenizer}"')
    tokens, padding, labels = reviews(run, tokenizer)
    with torch.no_grad():
        logits = headloom.load(run)(tokens, padding)
    torch.testing.assert_close(
        float(functional.cross_entropy(logits, labels)),
        command.evaluate(run)["loss"],
        atol=0,
        rtol=1e-5,
    )


@pytest.mark.parametrize("tied", ["true", "false"])
def test_a_masked_language_model_goes_there_and_back(folder, tied, tmp_path):
    """Its validation masks are the task's own; the command must read back what Python wrote, and the
    figures must be those of the weights."""
    run = folder / f"masked-{tied}"
    command.train("masked_lm", run, f"task.tie_embedding={tied}", "model.norm=post")
    model = headloom.load(run)
    logits = model(torch.randint(400, (2, 9)))
    assert logits.shape == (2, 9, 400)
    headloom.save(model, tmp_path / "same")
    figures = command.evaluate(run)
    assert command.evaluate(tmp_path / "same") == figures
    with torch.no_grad():
        # Every token alike: the loss is then the entropy of the uniform distribution.
        model.norm.weight.zero_()
        model.norm.bias.zero_()
        model.bias.zero_()
    headloom.save(headloom_copy(model, run), tmp_path / "uniform")
    uniform = command.evaluate(tmp_path / "uniform")
    assert uniform["perplexity"] == pytest.approx(400, rel=1e-5) != figures["perplexity"]


def translation_batch(tokenizer, lines):
    """[B, T] ids padded with the end, and where the padding is."""
    begin, end = tokenizer.token_to_id("<s>"), tokenizer.token_to_id("</s>")
    rows = [tokenizer.encode(line, add_special_tokens=False).ids for line in lines]
    pad = torch.nn.utils.rnn.pad_sequence
    ended = pad([torch.tensor([*row, end]) for row in rows], True, padding_value=-100)
    begun = pad([torch.tensor([begin, *row]) for row in rows], True, padding_value=end)
    return ended, begun


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        (
            "mixer.name=dynamic_conv",
            "encoder_mixer.name=talking_heads",
            "model.decoder_layers=2",
            "model.norm=pre",
            "task.share_embeddings=false",
            "task.tie_output=false",
        ),
    ],
    ids=("one-mechanism", "one-each"),
)
def test_translation_has_the_commands_figures(folder, tmp_path, overrides):
    tokenizers = pytest.importorskip("tokenizers")
    run = folder / f"translation-{len(overrides)}"
    command.train("translation", run, *overrides)
    model = headloom.load(run)
    tokenizer = tokenizers.Tokenizer.from_file(str(next(run.glob("*tokenizer.json"))))
    data = command.ROOT / "recipes" / "smoke" / "translation"
    source, target = (
        (data / f"validation.{side}").read_text(encoding="utf-8").splitlines()
        for side in ("words", "digits")
    )
    ids, _ = translation_batch(tokenizer, source)
    predicted, given = translation_batch(tokenizer, target)
    with torch.no_grad():
        logits = model(ids.clamp_min(0), given, ids < 0)
    nats = functional.cross_entropy(logits.flatten(0, 1), predicted.flatten(), ignore_index=-100)
    figures = command.evaluate(run)
    torch.testing.assert_close(float(nats), figures["nats_per_token"], atol=0, rtol=1e-5)
    headloom.save(model, tmp_path / "same")
    assert command.evaluate(tmp_path / "same") == figures


def answers(tokenizer, words):
    """What a decoder reads and predicts of each word: [K, T], the latter with -100 behind."""
    pad, end = tokenizer.token_to_id("[PAD]"), tokenizer.token_to_id("[SEP]")
    rows = [tokenizer.encode(word, add_special_tokens=False).ids for word in words]
    padded = torch.nn.utils.rnn.pad_sequence
    read = padded([torch.tensor([pad, *row]) for row in rows], True, padding_value=pad)
    return read, padded([torch.tensor([*row, end]) for row in rows], True, padding_value=-100)


T5_SHAPE = (
    "model.norm_type=rms",
    "model.activation=gated_gelu",
    "model.positions=none",
    "task.tie_output=false",
)


@pytest.mark.parametrize("overrides", [(), T5_SHAPE], ids=("plain", "t5"))
def test_text_to_text_has_the_commands_figures(folder, overrides):
    tokenizers = pytest.importorskip("tokenizers")
    run = folder / f"text-to-text-{len(overrides)}"
    command.train("text_to_text", run, *overrides)
    model = headloom.load(run)
    tokenizer = tokenizers.Tokenizer.from_file(str(run / "tokenizer.json"))
    read, predicted = answers(tokenizer, ("negative", "positive"))
    path = command.ROOT / "recipes/smoke/data/reviews_dev.tsv"
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    scores = torch.zeros(len(rows), 2)
    for row, (text, _) in enumerate(rows):
        ids = tokenizer.encode(f"sst2 sentence: {text}", add_special_tokens=False).ids
        assert len(ids) < 48, "nothing is cut"
        source = torch.tensor([[*ids, tokenizer.token_to_id("[SEP]")]])
        with torch.no_grad():
            logits = model(source.expand(2, -1), read)  # [K, T, V]
        nats = functional.cross_entropy(
            logits.transpose(1, 2), predicted, ignore_index=-100, reduction="none"
        )
        scores[row] = -nats.sum(1)
    labels = torch.tensor([int(label) for _, label in rows])
    figures = command.evaluate(run)
    torch.testing.assert_close(
        float(functional.cross_entropy(scores, labels)), figures["loss"], atol=0, rtol=1e-5
    )
    right = float((scores.argmax(1) == labels).double().mean())
    assert right == pytest.approx(figures["accuracy"])


def test_span_corruption_goes_there_and_back(folder, tmp_path):
    """Its validation spans are the task's own; the command must read back what Python wrote."""
    run = folder / "spans"
    command.train("span_corruption", run, *T5_SHAPE)
    model = headloom.load(run)
    source, target = torch.randint(400, (2, 9)), torch.randint(400, (2, 5))
    assert model(source, target).shape == (2, 5, 400 + 20)
    headloom.save(model, tmp_path / "same")
    figures = command.evaluate(run)
    assert command.evaluate(tmp_path / "same") == figures
    with torch.no_grad():
        model.model.output.weight.zero_()
    headloom.save(headloom_copy(model, run), tmp_path / "uniform")
    uniform = command.evaluate(tmp_path / "uniform")
    assert uniform["perplexity"] == pytest.approx(420, rel=1e-5) != figures["perplexity"]


def headloom_copy(model, run):
    """The weights of a model in one that was just loaded from a run."""
    fresh = headloom.load(run)
    fresh.load_state_dict(model.state_dict())
    return fresh


def test_a_run_with_an_alignment_objective_is_loaded_without_it(text):
    run = text("dot_product", "alignment.form=discrepancy")
    model = headloom.load(run)
    assert not any("alignment" in name for name in model.state_dict())
    torch.testing.assert_close(
        nats_per_byte(model, text.path), command.evaluate(run)["nats_per_byte"], atol=0, rtol=1e-5
    )


def test_the_newest_whole_checkpoint_stands_in_for_a_best_one(text, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(text("dot_product"), run)
    shutil.rmtree(run / "checkpoints" / "best")
    assert headloom.load(run).run.step == 20
    torn = run / "checkpoints" / "step_00000020" / "model.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="skipped: .*as the manifest says"):
        assert headloom.load(run).run.step == 10


@first_is_fast
def test_the_command_reads_what_python_writes(text, tmp_path, mechanism):
    model = headloom.load(text(mechanism))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    data = torch.tensor([list(text.path.read_bytes()[:CONTEXT])])
    for _ in range(3):
        optimizer.zero_grad()
        functional.cross_entropy(model(data[:, :-1])[0], data[0, 1:]).backward()
        optimizer.step()
    headloom.save(model, tmp_path / "saved")
    figures = command.evaluate(tmp_path / "saved")
    assert figures != command.evaluate(text(mechanism))
    torch.testing.assert_close(
        nats_per_byte(model, text.path), figures["nats_per_byte"], atol=0, rtol=1e-5
    )
    printed = command.run(
        "generate", tmp_path / "saved", "--prompt", "Q", "--length", 30, "--temperature", 0
    )
    assert model.write("Q", 30, temperature=0) == printed.removesuffix("\n")
    again = headloom.load(tmp_path / "saved")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def change_recipe(run, old, new):
    """Another recipe in the best checkpoint, with the manifest that belongs to it."""
    best = run / "checkpoints" / "best"
    recipe = (best / "recipe.toml").read_text(encoding="utf-8").replace(old, new)
    (best / "recipe.toml").write_text(recipe, encoding="utf-8")
    body = json.loads((best / "manifest.json").read_text(encoding="utf-8"))
    data = recipe.encode()
    body["files"]["recipe.toml"] = {"bytes": len(data), "crc32": zlib.crc32(data)}
    del body["crc32"]
    body["crc32"] = zlib.crc32(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())
    (best / "manifest.json").write_text(json.dumps(body), encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "language_model"', 'name = "weather"', ["language_model, listops", '"weather"']),
        (
            'name = "dot_product"',
            'name = "dot_prodct"',
            ['"dot_prodct"', 'Did you mean "dot_product"'],
        ),
        (
            'name = "dot_product"',
            'name = "dot_product"\nwindow = 3',
            ["mixer dot_product", "window"],
        ),
        ("context = 32", "context = 32\ntokenizer = 3", ["[task]", "tokenizer"]),
        ("ffn = 32", "ffn = 32\nexperts = 3", ["[model]", "experts"]),
        ("ffn = 32", "ffn = 48", ["ffn_in.weight [32, 16]"]),
        ("layers = 2", "layers = 3", ["no model.transformer.blocks.2"]),
    ],
    ids=["task", "mechanism", "mixer-option", "task-option", "model-key", "shape", "missing"],
)
def test_what_is_not_known_is_refused_by_name(text, tmp_path, old, new, words):
    run = tmp_path / "run"
    shutil.copytree(text("dot_product"), run)
    change_recipe(run, old, new)
    with pytest.raises(ValueError) as refusal:
        headloom.load(run)
    for word in (*words, "expected", "found"):
        assert word in str(refusal.value)


def test_damage_is_refused_by_file(text, tmp_path):
    with pytest.raises(headloom.CheckpointError, match="expected a run folder; found no such"):
        headloom.load(tmp_path / "nowhere")
    with pytest.raises(headloom.CheckpointError, match="a run folder with a checkpoint"):
        headloom.load(tmp_path)
    run = tmp_path / "run"
    shutil.copytree(text("dot_product"), run)
    manifest = run / "checkpoints" / "best" / "manifest.json"
    whole = manifest.read_text(encoding="utf-8")
    for broken, words in (
        (whole.replace('"step": ', '"step": 1'), "CRC-32 agrees"),
        (whole.replace('"version": 1', '"version": 2'), "'version': 1"),
        ("[]", "manifest of a checkpoint"),
    ):
        manifest.write_text(broken, encoding="utf-8")
        with pytest.raises(headloom.CheckpointError, match=words):
            headloom.load(run)


def test_saving_refuses_what_it_would_harm(text, tmp_path):
    model = headloom.load(text("dot_product"))
    with pytest.raises(headloom.CheckpointError, match="an empty one; found one with files"):
        headloom.save(model, text("dot_product"))
    with pytest.raises(ValueError, match="a module that headloom.load.. made; found Linear"):
        headloom.save(torch.nn.Linear(2, 2), tmp_path / "new")

"""The command's tokenizers and scores beside the tokenizers package and sacreBLEU.

The texts are this repository's own files and random characters. Skipped where a package is not
installed (requirements-oracles.txt) or the command is not built.
"""

import random
import subprocess
import unicodedata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = ROOT / "build" / "headloom"

pytestmark = pytest.mark.skipif(not COMMAND.exists(), reason="build/headloom is not built")


@pytest.fixture(scope="module")
def tokenizers():
    return pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def sacrebleu():
    return pytest.importorskip("sacrebleu")


def run(*arguments, text=""):
    done = subprocess.run(
        [COMMAND, "data", *map(str, arguments)], input=text.encode(), capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def encode(path, lines):
    rows = run("encode", "--tokenizer", path, text="".join(line + "\n" for line in lines))
    return [[int(word) for word in row.split()] for row in rows.split("\n")[:-1]]


def repository_lines():
    """What people write: prose, code, tables."""
    lines = []
    for pattern in ("*.md", "docs/*.md", "headloom/**/*.h", "headloom/**/*.cpp", "python/**/*.py"):
        for path in sorted(ROOT.glob(pattern)):
            lines += path.read_text(encoding="utf-8").split("\n")
    return lines


PIECES = (
    list("aAzZ09.,-'\"#_<>[](){} \t\x0b\x1f\x7f")
    + "\u00a0 \u00ad \u00bd \u00df \u00e4 \u0130 \u0131 \u01c5 \u0300 \u0308 \u0345 \u03a3 \u03c2".split(
        " "
    )
    + "\u0663 \u0939 \u0e17 \u1e9e \u2003 \u2028 \u2029 \u200b \u200d \u2126 \u2167 \u3000".split(
        " "
    )
    + "\u6a5f \uac00 \uf8ff \ufb01 \ufeff \ufffd \U0001f9f6 \U00020000 \U0002f800".split(" ")
    + ["'s", "'ll", " '", "the", "<s>", "</s>", "<mask>", "[MASK]", "[SEP]", "##s", "mask>", "  "]
)


def is_old(point):
    """Assigned in Unicode 3.2, with the same category ever since: the same in every version."""
    category = unicodedata.category(chr(point))
    return category not in ("Cn", "Cs") and category == unicodedata.ucd_3_2_0.category(chr(point))


KNOWN = [point for point in range(0x20, 0x3000) if is_old(point)]


def random_lines(count, seed):
    chance = random.Random(seed)
    lines = ["A mark (U+FEFF) would be left out at the very start."]
    for _ in range(count):
        pieces = [chance.choice(PIECES) for _ in range(chance.randrange(30))]
        if chance.random() < 0.3:
            pieces.append(chr(chance.choice(KNOWN)))
        lines.append("".join(pieces))
    return lines


@pytest.fixture(scope="module")
def learned(tmp_path_factory, tokenizers):
    """Files that the command learned, and variants that the package wrote of them."""
    folder = tmp_path_factory.mktemp("tokenizers")
    text = folder / "text"
    text.write_text("\n".join(repository_lines()), encoding="utf-8")
    paths = {}
    for name, options in {
        "bpe": [],
        "bpe_prefix_space": ["--prefix-space"],
        "wordpiece": ["--algorithm", "wordpiece"],
        "wordpiece_cased": ["--algorithm", "wordpiece", "--cased"],
    }.items():
        paths[name] = folder / f"{name}.json"
        run("tokenizer", *options, "--size", 2000, "--input", text, "--output", paths[name])

    roberta = tokenizers.Tokenizer.from_file(str(paths["bpe"]))
    roberta.add_special_tokens([tokenizers.AddedToken("<mask>", lstrip=True, normalized=False)])
    roberta.add_tokens([tokenizers.AddedToken("the", single_word=True), "loom", "head"])
    added = tokenizers.Tokenizer.from_file(str(paths["wordpiece"]))
    added.add_tokens([tokenizers.AddedToken("\u00c4", rstrip=True, normalized=True), "the", "9."])
    forms = tokenizers.Tokenizer.from_file(str(paths["bpe"]))
    forms.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.NFKC(), tokenizers.normalizers.Lowercase()]
    )
    for name, tokenizer in {"roberta": roberta, "added": added, "forms": forms}.items():
        paths[name] = folder / f"{name}.json"
        tokenizer.save(str(paths[name]))
    return paths


NAMES = ["bpe", "bpe_prefix_space", "wordpiece", "wordpiece_cased", "roberta", "added", "forms"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["repository", "random"])
def test_ids_are_the_packages(learned, tokenizers, name, kind):
    seed = NAMES.index(name)
    lines = repository_lines()[seed :: len(NAMES)] if kind == "repository" else []
    lines = lines or random_lines(2000, seed)
    theirs = tokenizers.Tokenizer.from_file(str(learned[name]))
    expected = [theirs.encode(line, add_special_tokens=False).ids for line in lines]
    for line, found, wanted in zip(lines, encode(learned[name], lines), expected, strict=True):
        assert found == wanted, repr(line)


@pytest.mark.parametrize("name", ["bpe", "wordpiece"])
def test_the_package_writes_the_same_file(learned, tokenizers, name):
    theirs = tokenizers.Tokenizer.from_file(str(learned[name]))
    assert theirs.to_str(pretty=True) == learned[name].read_text(encoding="utf-8")


def test_learning_finds_the_packages_merges(learned, tokenizers, tmp_path):
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.train_from_iterator(
        repository_lines(),
        tokenizers.trainers.BpeTrainer(
            vocab_size=2000,
            min_frequency=2,
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
            show_progress=False,
        ),
    )
    ours = tokenizers.Tokenizer.from_file(str(learned["bpe"]))
    assert ours.get_vocab() == theirs.get_vocab()


@pytest.mark.slow
def test_characters_have_the_packages_classes(tokenizers, tmp_path):
    """Which class GPT-2's rule gives a character shows in the sign that it stays together with."""
    points = [point for point in range(0x80, 0x20000) if unicodedata.category(chr(point)) != "Cn"]
    points = [p for p in points if not 0xD800 <= p < 0xE000]
    points = [p for p in points if not 0x3400 <= p < 0xD800 or p % 16 == 0]
    vocabulary = {character: 0 for character in tokenizers.pre_tokenizers.ByteLevel.alphabet()}
    cut = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for point in points:
        for beside in "a1!":
            vocabulary[cut.pre_tokenize_str(beside + chr(point))[0][0]] = 0
    vocabulary = {token: number for number, token in enumerate(vocabulary)}
    theirs = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab=vocabulary, merges=[], ignore_merges=True)
    )
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    path = tmp_path / "classes.json"
    theirs.save(str(path))
    lines = [beside + chr(point) for point in points for beside in "a1!"]
    expected = [theirs.encode(line).ids for line in lines]
    wrong = {
        line for line, a, b in zip(lines, encode(path, lines), expected, strict=True) if a != b
    }
    assert not wrong


@pytest.mark.slow
def test_characters_are_bert_s(learned, tokenizers):
    """Normalised, kept, dropped and cut: the characters of Unicode 3.2."""
    points = [p for p in range(0x30000) if is_old(p) and p not in (0x0A, 0x0D)]
    points = [p for p in points if not 0x3400 <= p < 0xD800 or p % 16 == 0]
    lines = [f"a{chr(p)}b {chr(p)}" for p in points]
    for name in ("wordpiece", "wordpiece_cased"):
        theirs = tokenizers.Tokenizer.from_file(str(learned[name]))
        expected = [theirs.encode(line, add_special_tokens=False).ids for line in lines]
        found = encode(learned[name], lines)
        wrong = [line for line, a, b in zip(lines, found, expected, strict=True) if a != b]
        assert not wrong


def bleu_of(*arguments, hypotheses):
    line = run("score", *arguments, text="".join(text + "\n" for text in hypotheses))
    signature, rest = line.rstrip("\n").split(" = ", 1)
    return signature, rest


def damaged(lines, seed):
    chance = random.Random(seed)
    result = []
    for line in lines:
        words = line.split(" ")
        chance.shuffle(words) if chance.random() < 0.2 else None
        result.append(" ".join(word for word in words if chance.random() < 0.9))
    return result


@pytest.mark.parametrize("kind", ["repository", "random"])
@pytest.mark.parametrize("seed", [1, 2])
def test_scores_are_sacrebleus(sacrebleu, tmp_path, kind, seed):
    lines = repository_lines()[seed:3000:4] if kind == "repository" else random_lines(500, seed)
    references = [lines, damaged(lines, seed + 10)][:seed]
    hypotheses = damaged(lines, seed)
    files = [tmp_path / str(number) for number in range(len(references))]
    for path, texts in zip(files, references, strict=True):
        path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    metrics = [
        (["--tokenize", "13a"], sacrebleu.BLEU()),
        (["--tokenize", "none"], sacrebleu.BLEU(tokenize="none")),
        (["--tokenize", "13a", "--lowercase"], sacrebleu.BLEU(lowercase=True)),
        (["--metric", "chrf"], sacrebleu.CHRF()),
        (["--metric", "chrf++"], sacrebleu.CHRF(word_order=2)),
    ]
    # As sacreBLEU's own command does with the lines of a file.
    references = [[text.rstrip() for text in texts] for texts in references]
    for options, metric in metrics:
        score = metric.corpus_score([text.rstrip() for text in hypotheses], references)
        signature, rest = bleu_of(*options, "--references", *files, hypotheses=hypotheses)
        assert signature == f"{score.name}|{metric.get_signature()}"
        if options == ["--tokenize", "13a", "--lowercase"] and kind == "random":
            continue  # holds final sigmas, which are left as they are
        assert rest.split(" ")[0] == f"{score.score:.2f}"
        if isinstance(metric, sacrebleu.BLEU):
            assert rest.split(" ", 1)[1] == score._verbose


def test_split_compounds_are_the_scripts(sacrebleu, tmp_path):
    import re

    reference = "a well-known red-brown field - x-y-z -- end-"
    hypothesis = "a well-known reddish-brown field - x-y-z -- end-"
    (tmp_path / "reference").write_text(reference + "\n")
    split = [re.sub(r"(\S)-(\S)", r"\1 ##AT##-##AT## \2", text) for text in (hypothesis, reference)]
    score = sacrebleu.BLEU(tokenize="none").corpus_score([split[0]], [[split[1]]])
    options = ["--tokenize", "none", "--split-compounds", "--references", tmp_path / "reference"]
    _, rest = bleu_of(*options, hypotheses=[hypothesis])
    assert rest == f"{score.score:.2f} {score._verbose}"

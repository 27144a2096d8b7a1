"""Writes text.json: what the tokenizers package and sacreBLEU make of a few texts.

Needs both (requirements-oracles.txt); run from tests/golden. The tokenizer files in it are as the
package saves them.
"""

import json

import sacrebleu
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

# Texts to learn from: each a line.
TEXTS = [
    "The weaver sets the loom before the sun is up, and the loom sets the pace of the house.",
    "A warp of a thousand threads hangs from the beam; the weft goes over and under, over and under.",
    "She doesn't count the threads any more. They've counted themselves, she says, since 1987.",
    "When a thread breaks, the pattern waits; when the pattern breaks, the weaver waits.",
    "Threads of wool, threads of flax, and threads of a blue that nobody else can dye.",
    "Heddles lift every second thread, the shuttle flies, the reed beats: that's one row of 4,096.",
    "The house smells of sheep and of rain. It's warm, it's loud, and it'll be sold in spring.",
    "Wer webt, der z\u00e4hlt; wer z\u00e4hlt, der schl\u00e4ft nicht \u00fcber dem Weben ein.",
    "Der Webstuhl steht am Fenster, und das Fenster steht immer offen.",
]

# Texts to encode: what a corpus holds, and what it should not.
SAMPLES = [
    "The weaver sets the loom.",
    "",
    " ",
    "   leading, and trailing   ",
    "tabs\tand\u00a0hard  spaces\r\n\r\nand lines\n",
    "don't DON'T they'll we've I'm he'd it's 'tis 'll",
    "3.14159 and 1,000,000 and \u00bd and \u0663 and \u2167",
    "Der Z\u00e4hler \u00dcBER dem Stra\u00dfenbelag",
    "z\u0061\u0308hlt decomposed, \u01c5 titled, \u0130stanbul",
    "\u6a5f\u7e54\u308a\u306e\u5bb6 and \uae38\uc3c8",
    "\u041c\u0430\u0442\u044c \u0442\u043a\u0451\u0442",
    "\U0001f9f6\U0001f9f5 yarn \U0001f468\u200d\U0001f469\u200d\U0001f467 family",
    "nul\x00inside, bell\x07, \ufeff mark, \ufffd replaced, \u200b zero width",
    "<s>The</s><mask> loom [MASK] and [CLS]the [SEP]",
    "a b  c   d    e",
    "punctuation!!! (really?) -- yes; \u201cquoted\u201d \u2014 \u00bfno? \u3002",
    "under_score snake_case #hash ##hash @at $5 50% ^caret `tick` ~tilde |pipe|",
    "x" * 120,
    "\u0e17\u0e2d\u0e1c\u0e49\u0e32 \u0939\u0925\u0915\u0930\u0918\u093e",
    "\u2003em\u2003space\u3000ideographic\u2028line\u2029paragraph\u0085next",
]

HYPOTHESES = [
    "The weaver counts the threads, and the loom waits.",
    "A dog runs over the well-known red-brown field in 3.5 minutes - or 4,000 steps.",
    "Nothing in common",
    "",
    "She said: \u201cI don't know\u201d &amp; left.",
    "The house smells of sheep and rain.",
    "caf\u00e7 \u00bfwei\u00df\u00a1 \u6a5f\u7e67 (in brackets) \u201cquoted\u201d",
]
REFERENCES = [
    [
        "The weaver counts her threads and the loom waits.",
        "A dog runs across the well-known reddish-brown field in 3.5 minutes, or 4,000 steps.",
        "Completely different words here",
        "Not empty.",
        "She said: \u201cI do not know\u201d & left.",
        "The house smells of sheep and of rain.",
        "caf\u00e7 wei\u00df \u6a5f\u7e67 in brackets \u201cquoted",
    ],
    [
        "The weaver is counting the threads, and the loom waits.",
        "One dog ran over the well-known red-brown field in three minutes.",
        "Something in common",
        "",
        "\u201cI don't know,\u201d she said, and left.",
        "It smells of sheep and rain in the house.",
        "caf\u00e7 wei\u00df \u6a5f (in brackets",
    ],
]
# Shares no three words in a row with hypothesis 5.
SHORT = [[*REFERENCES[0][:5], "The house, sheep and the rain: smells of home."]]


def byte_level_bpe(prefix_space):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=420,
            min_frequency=2,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
            show_progress=False,
        ),
    )
    mask = AddedToken("<mask>", lstrip=True, normalized=False)
    tokenizer.add_special_tokens([mask])
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=prefix_space
    )
    return tokenizer


def word_piece(lowercase):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.WordPieceTrainer(
            vocab_size=200,
            min_frequency=2,
            special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
            show_progress=False,
        ),
    )
    # In the order of the tokens: the package numbers characters as its hash table has them.
    vocabulary = sorted(tokenizer.get_vocab())
    vocabulary.sort(key=lambda token: (not token.startswith("["), token))
    numbered = {token: number for number, token in enumerate(vocabulary)}
    result = Tokenizer(models.WordPiece(numbered, unk_token="[UNK]"))
    result.normalizer = tokenizer.normalizer
    result.pre_tokenizer = tokenizer.pre_tokenizer
    result.decoder = tokenizer.decoder
    ids = {token: result.token_to_id(token) for token in ("[CLS]", "[SEP]")}
    result.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=list(ids.items()),
    )
    specials = [AddedToken(token, normalized=False) for token in vocabulary if token[0] == "["]
    result.add_special_tokens([t for t in specials if t.content.endswith("]")])
    return result


def tokenizer_case(name, tokenizer):
    single = [tokenizer.encode(text) for text in SAMPLES]
    pair = tokenizer.encode(SAMPLES[0], SAMPLES[7])
    plain = [tokenizer.encode(text, add_special_tokens=False).ids for text in SAMPLES]
    return {
        "name": name,
        "file": tokenizer.to_str(pretty=True),
        "ids": plain,
        "single": [encoding.ids for encoding in single],
        "pair": {"ids": pair.ids, "types": pair.type_ids},
        "decoded": [tokenizer.decode(ids) for ids in plain],
        "decoded_special": [tokenizer.decode(e.ids, skip_special_tokens=False) for e in single],
    }


def bleu_case(references, first=0, last=None, **options):
    metric = sacrebleu.BLEU(**options)
    references = [texts[first:last] for texts in references]
    score = metric.corpus_score(HYPOTHESES[first:last], references)
    return {
        "options": options,
        "hypotheses": HYPOTHESES[first:last],
        "references": references,
        "score": score.score,
        "details": score._verbose,
        "signature": str(metric.get_signature()),
    }


def chrf_case(references, **options):
    metric = sacrebleu.CHRF(**options)
    score = metric.corpus_score(HYPOTHESES, references)
    return {
        "options": options,
        "hypotheses": HYPOTHESES,
        "references": references,
        "score": score.score,
        "name": score.name,
        "signature": str(metric.get_signature()),
    }


def main():
    one, two = REFERENCES[:1], REFERENCES
    golden = {
        "texts": TEXTS,
        "samples": SAMPLES,
        "tokenizers": [
            tokenizer_case("bpe", byte_level_bpe(False)),
            tokenizer_case("bpe_prefix_space", byte_level_bpe(True)),
            tokenizer_case("wordpiece", word_piece(True)),
            tokenizer_case("wordpiece_cased", word_piece(False)),
        ],
        "bleu": [
            bleu_case(one),
            bleu_case(two),
            bleu_case(one, tokenize="none"),
            bleu_case(one, lowercase=True),
            bleu_case(two, smooth_method="add-k"),
            bleu_case(one, first=5, last=6, smooth_method="none"),
            bleu_case(SHORT, first=5, last=6, smooth_method="exp"),
            bleu_case(SHORT, first=5, last=6, smooth_method="none"),
            bleu_case(SHORT, first=5, last=6, smooth_method="floor"),
            bleu_case(SHORT, first=5, last=6, smooth_method="floor", smooth_value=0.25),
            bleu_case(SHORT, first=5, last=6, effective_order=True),
        ],
        "chrf": [
            chrf_case(one),
            chrf_case(two),
            chrf_case(one, word_order=2),
            chrf_case(two, word_order=2, lowercase=True),
            chrf_case(one, whitespace=True),
        ],
    }
    with open("text.json", "w", encoding="utf-8") as file:
        json.dump(golden, file, ensure_ascii=True, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()

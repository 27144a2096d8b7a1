"""Writes bert/ and roberta/, folders of small random models as the transformers package saves them, and
bert.txt, the logits that it computes with them. The C++ tests import the folders and compare. Run from this
folder."""

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from golden import File

SIZES = {
    "vocab_size": 24,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 20,
    "max_position_embeddings": 14,
}
SPECIAL = {
    "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    "roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
}


def make(kind):
    """A model whose every parameter is drawn, so that none is 0 or 1 by chance of its initial value."""
    transformers.set_seed(7)
    if kind == "bert":
        model = transformers.BertForMaskedLM(transformers.BertConfig(**SIZES))
    else:
        config = transformers.RobertaConfig(**SIZES, type_vocab_size=1, layer_norm_eps=1e-5)
        model = transformers.RobertaForMaskedLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            offset = 1.0 if "orm.weight" in name else 0.0
            parameter.normal_(offset, 0.3)
    return model.eval()


def make_tokenizer(kind):
    special = SPECIAL[kind]
    words = special + [chr(ord("a") + i) for i in range(SIZES["vocab_size"] - len(special))]
    unknown = "[UNK]" if kind == "bert" else "<unk>"
    tokenizer = Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(words)}, unk_token=unknown)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(special)
    begin, end = ("[CLS]", "[SEP]") if kind == "bert" else ("<s>", "</s>")
    ids = {word: i for i, word in enumerate(words)}
    tokenizer.post_processor = processors.BertProcessing((end, ids[end]), (begin, ids[begin]))
    return tokenizer


def inputs(kind):
    """Tokens, padding on the right, and token types."""
    pad = 0 if kind == "bert" else 1
    tokens = torch.tensor([[2, 9, 12, 3, 17, 8, 3, 23], [2, 20, 6, 11, 3, pad, pad, pad]])
    types = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 0, 0, 0]])
    return tokens, tokens == pad, types if kind == "bert" else torch.zeros_like(types)


def logits(model, kind):
    tokens, padding, types = inputs(kind)
    with torch.no_grad():
        found = model.double()(
            tokens, attention_mask=(~padding).long(), token_type_ids=types
        ).logits
    return found


def main():
    out = File()
    for kind in ("bert", "roberta"):
        folder = Path(kind)
        model = make(kind)
        model.save_pretrained(folder)
        make_tokenizer(kind).save(str(folder / "tokenizer.json"))
        (folder / "generation_config.json").unlink(missing_ok=True)
        tokens, padding, types = inputs(kind)
        out.case(kind)
        out.tensor("float", "tokens", tokens)
        out.tensor("mask", "padding", padding.to(torch.uint8))
        out.tensor("float", "types", types)
        out.tensor("expect", "logits", logits(model, kind))
    out.write(Path("bert.txt"))


if __name__ == "__main__":
    main()

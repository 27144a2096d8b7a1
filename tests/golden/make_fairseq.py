"""Writes fairseq_<kind>.safetensors, weights that were imported from a state dict with fairseq's names,
and fairseq_<kind>.txt, what the model of that state dict computes (fairseq_plain.py). The C++ tests load
the one and compare with the other. Run from this folder, with PYTHONPATH at ../../python."""

from pathlib import Path

import torch

from fairseq_plain import DYNAMIC, LIGHT, PADDING, forward, make_state
from golden import File
from headloom.compat import fairseq

SOURCE = torch.tensor([[4, 7, 2, 9, 5, 10], [1, 1, 3, 8, 6, 2], [6, 3, 3, 2, 1, 1]])
TARGET = torch.tensor([[2, 5, 8, 3, 0, 7, 9], [2, 4, 10, 6, 6, 3, 5], [2, 9, 0, 8, 4, 4, 3]])


def imported(model):
    return fairseq.convert(
        make_state(model),
        encoder_heads=model.heads,
        decoder_heads=model.heads,
        max_length=20,
        dtype=None,
    )


def main():
    for kind, model in (("light", LIGHT), ("dynamic", DYNAMIC)):
        imported(model).save(f"fairseq_{kind}.safetensors")
        out = File()
        out.case(kind)
        for name, tokens in (("source", SOURCE), ("target", TARGET)):
            out.tensor("float", name, tokens)
        out.tensor("mask", "padding", SOURCE.eq(PADDING).to(torch.uint8))
        out.tensor("expect", "logits", forward(make_state(model), model, SOURCE, TARGET))
        out.write(Path(f"fairseq_{kind}.txt"))


if __name__ == "__main__":
    main()
